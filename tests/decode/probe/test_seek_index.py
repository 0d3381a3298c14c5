"""Tests that key frames found by seeking equal those of reading all packets."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.videos import decode_limits, open_source, probe_file, remux, render
from tubelet.service.decode.demux.stream import Stream, open_stream
from tubelet.service.decode.probe.seek_index import KeyFrameSearch, SeekedKeyFrames

_SECONDS, _RATE = 24, 25
_KINDS = {
    "mpegts": ("ts", "libx264", {"bf": "3"}, {}),
    "mpegts of many groups": ("ts", "libx264", {"bf": "2", "g": "5"}, {}),
    "ogg": ("ogv", "libvpx", {"deadline": "realtime", "cpu-used": "8"}, {}),
    "asf": ("wmv", "wmv2", {}, {}),
    "a list of fragments": ("mp4", "libx264", {"bf": "3"}, {"movflags": "dash+frag_keyframe+global_sidx"}),
}


@pytest.fixture(scope="module", params=_KINDS)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ending, codec, coding, options = _KINDS[request.param]
    folder = tmp_path_factory.mktemp("sought")
    coding = {"g": "40", "sc_threshold": "0"} | coding
    coded = folder / ("coded.mp4" if codec == "libx264" else f"coded.{ending}")
    render(coded, _SECONDS * _RATE, rate=_RATE, codec=codec, options=coding)
    return remux(coded, folder / f"clip.{ending}", options)


@pytest.fixture
def opened() -> list[Stream]:
    """The streams that were opened for the search."""
    return []


@pytest.fixture
def sought(clip: Path, opened: list[Stream]) -> Iterator[SeekedKeyFrames]:
    with closing(open_source(clip)) as source, probe_file(clip) as track:

        def reopen() -> Stream:
            opened.append(open_stream(source, track.stream_index, decode_limits(), lambda: None))
            return opened[-1]

        frame_ticks = 1 / (_RATE * track.timeline.time_base)
        with closing(SeekedKeyFrames(KeyFrameSearch(reopen, track.timeline.origin, frame_ticks))) as keys:
            yield keys


def test_seeking_finds_the_key_frames_of_a_full_read(clip: Path, sought: SeekedKeyFrames) -> None:
    with probe_file(clip) as track:
        known, timeline = track.key_frames, track.timeline
    assert known is not None
    chance = random.Random(0)
    for _ in range(3):  # each time from the front again
        times = sorted(chance.sample(range(_SECONDS * 1000), 40))
        for ticks in (timeline.to_ticks(time * 1_000_000) for time in times):
            expected, found = known.at_or_before(ticks), sought.at_or_before(ticks)
            assert expected is not None
            assert found == expected or (found is None and expected.packet_index == 0)


def test_two_alternating_callers_do_not_reopen_the_file(
    clip: Path, sought: SeekedKeyFrames, opened: list[Stream]
) -> None:
    with probe_file(clip) as track:
        known, timeline = track.key_frames, track.timeline
    assert known is not None
    times = [timeline.to_ticks(time_ms * 1_000_000) for time_ms in range(0, _SECONDS * 1000, 150)]
    for place, first in enumerate(times):
        for ticks in (first, times[max(0, place - 20)]):
            expected, found = known.at_or_before(ticks), sought.at_or_before(ticks)
            assert expected is not None
            assert found == expected or (found is None and expected.packet_index == 0)
    assert len(opened) <= 3
