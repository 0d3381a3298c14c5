"""Tests that statistics from an mp4's index equal those of reading every packet."""

from pathlib import Path

import pytest

from tests.support.mp4_boxes import box, boxes
from tests.support.videos import probe_file, remux, render, shared_clip
from tubelet.service.decode.demux.packet_stats import KeyFrameIndex
from tubelet.service.decode.probe import probe as probing
from tubelet.service.decode.probe.probe import Track
from tubelet.service.decode.protocol import VideoRejected

_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
_MANY = 600  # frames: more than are read one by one if there is an index


def _clip(folder: Path, frames: int, options: dict[str, str]) -> Path:
    """Write an mp4 with these muxer options."""
    coded = render(folder / f"{frames}c.mp4", frames, options={"g": "30", "bf": "2", "sc_threshold": "0"})
    return remux(coded, folder / f"{frames}.mp4", options)


def _probe_both_ways(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Track, Track]:
    """Probe a clip by its index, and by reading all its packets."""
    with probe_file(path) as by_index:
        pass
    monkeypatch.setattr(probing, "_MIN_PACKETS_FOR_INDEX", _MANY + 1)
    with probe_file(path) as by_packets:
        pass
    return by_index, by_packets


def _key_frame_queries(keys: KeyFrameIndex | None) -> list[object]:
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
def test_index_equals_reading_every_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, str]
) -> None:
    path = _clip(tmp_path, _MANY, options)
    by_index, by_packets = _probe_both_ways(path, monkeypatch)
    assert by_index.metadata == by_packets.metadata
    assert by_index.metadata.frames == _MANY
    assert by_index.timeline == by_packets.timeline
    assert _key_frame_queries(by_index.key_frames) == _key_frame_queries(by_packets.key_frames)


def test_failed_seek_back_opens_the_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are missing in the middle, so that the list of fragments leads to wrong offsets."""
    path = tmp_path / "damaged.mp4"
    whole = shared_clip("odd/androidx/sample_fragmented_seekable_multiple_sidx.mp4").read_bytes()
    path.write_bytes(whole[:21772] + whole[21804:])
    by_index, by_packets = _probe_both_ways(path, monkeypatch)
    assert by_index.metadata == by_packets.metadata
    assert by_index.metadata.frames == _MANY


def test_falling_timestamps_give_no_key_frames(tmp_path: Path) -> None:
    """Two recordings are joined, in fragments whose timestamps both begin at zero."""
    first, second = (_clip(tmp_path, frames, _FRAGMENTS).read_bytes() for frames in (200, 400))
    fragments = [box(name, body) for name, body in boxes(second) if name in (b"moof", b"mdat")]
    path = tmp_path / "both.mp4"
    path.write_bytes(b"".join([first, *fragments]))
    with probe_file(path) as track:
        assert track.key_frames is None


@pytest.mark.parametrize("options", [{}, _FRAGMENTS], ids=["whole", "fragments"])
def test_index_is_checked_against_the_frame_limit(tmp_path: Path, options: dict[str, str]) -> None:
    path = _clip(tmp_path, _MANY, options)
    with pytest.raises(VideoRejected) as refused, probe_file(path, max_frames=_MANY - 1):
        pass
    assert (refused.value.reason, refused.value.limit) == ("VIDEO_TOO_LARGE", _MANY - 1)
