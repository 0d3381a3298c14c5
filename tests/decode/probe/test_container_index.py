"""The index of an mp4 is taken for its packets where it is one: it says what reading them all would."""

from pathlib import Path

import pytest

from tests.support.mp4_boxes import box, boxes
from tests.support.videos import found, probed, remux, render
from tubelet.service.decode.demux.packet_stats import KeyFrameIndex
from tubelet.service.decode.probe import probe as probing
from tubelet.service.decode.probe.probe import Track
from tubelet.service.decode.protocol import VideoRejected

_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
_MANY = 600  # frames: more than are read one by one where there is an index


def _clip(folder: Path, frames: int, options: dict[str, str]) -> Path:
    """In an mp4 written with these options."""
    coded = render(folder / f"{frames}c.mp4", frames, options={"g": "30", "bf": "2", "sc_threshold": "0"})
    return remux(coded, folder / f"{frames}.mp4", options)


def _both_ways(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Track, Track]:
    """What is known of a clip by its index, and by all its packets."""
    with probed(path) as by_index:
        pass
    monkeypatch.setattr(probing, "_MIN_PACKETS_FOR_INDEX", _MANY + 1)
    with probed(path) as by_packets:
        pass
    return by_index, by_packets


def _places(keys: KeyFrameIndex | None) -> list[object]:
    assert keys is not None
    return [keys.at_or_before(ticks) for ticks in range(0, 1_000_000, 1000)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("whole", {}),
        ("fragments", _FRAGMENTS),
        ("the last fragment comes to light when it is read", {"movflags": "dash+frag_keyframe"}),
        (
            "a list of fragments at the front",
            {"movflags": "frag_keyframe+empty_moov+default_base_moof+global_sidx"},
        ),
        ("the first fragment in the header", {"movflags": "frag_keyframe"}),
    ],
)
def test_it_says_what_the_packets_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, str]
) -> None:
    path = _clip(tmp_path, _MANY, options)
    by_index, by_packets = _both_ways(path, monkeypatch)
    assert by_index.metadata == by_packets.metadata
    assert by_index.metadata.frames == _MANY
    assert by_index.timeline == by_packets.timeline
    assert _places(by_index.key_frames) == _places(by_packets.key_frames)


def test_who_finds_no_way_back_from_the_end_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of fragments lead to places that have moved: some bytes are missing in the middle."""
    path = tmp_path / "damaged.mp4"
    whole = found("odd/androidx/sample_fragmented_seekable_multiple_sidx.mp4").read_bytes()
    path.write_bytes(whole[:21772] + whole[21804:])
    by_index, by_packets = _both_ways(path, monkeypatch)
    assert by_index.metadata == by_packets.metadata
    assert by_index.metadata.frames == _MANY


def test_stamps_that_go_back_are_none(tmp_path: Path) -> None:
    """One recording behind another, in fragments whose clocks both begin at zero."""
    first, second = (_clip(tmp_path, frames, _FRAGMENTS).read_bytes() for frames in (200, 400))
    fragments = [box(name, body) for name, body in boxes(second) if name in (b"moof", b"mdat")]
    path = tmp_path / "both.mp4"
    path.write_bytes(b"".join([first, *fragments]))
    with probed(path) as track:
        assert track.key_frames is None


@pytest.mark.parametrize("options", [{}, _FRAGMENTS], ids=["whole", "fragments"])
def test_it_is_held_to_the_limit_on_frames(tmp_path: Path, options: dict[str, str]) -> None:
    path = _clip(tmp_path, _MANY, options)
    with pytest.raises(VideoRejected) as refused, probed(path, max_frames=_MANY - 1):
        pass
    assert (refused.value.reason, refused.value.metadata["limit"]) == ("VIDEO_TOO_LARGE", _MANY - 1)
