"""Tests of which packets must be decoded, on tables of timestamps."""

import pytest

from tubelet.service.decode.frames.lookahead import Lookahead, PacketInfo, UnreliableTimestamps

# In decoding order, (PTS, DTS): I P b b P b b, one frame every 10 ticks; then a key frame and one more.
_GOP = [(0, -20), (30, -10), (10, 0), (20, 10), (60, 20), (40, 30), (50, 40), (70, 50), (80, 60)]
_KEYS = {0, 70}


def _read(ahead: Lookahead, packets: list[tuple[int, int]], wanted: int) -> list[int]:
    """Add ``packets``, and return how many packets each one dropped."""
    return [ahead.add(PacketInfo(pts, dts, pts in _KEYS), wanted) for pts, dts in packets]


@pytest.mark.parametrize(
    ("wanted", "shown", "read", "packets"),
    [
        (0, 0, 3, 1),
        (9, 0, 4, 1),
        (10, 10, 4, 3),
        (25, 20, 6, 4),
        (30, 30, 6, 2),
        (49, 40, 8, 6),
        (60, 60, 9, 5),
    ],
)
def test_a_time_is_decided_by_a_packet_with_a_later_dts(
    wanted: int, shown: int, read: int, packets: int
) -> None:
    ahead = Lookahead()
    for number, (pts, dts) in enumerate(_GOP, 1):
        ahead.add(PacketInfo(pts, dts, pts in _KEYS), wanted)
        assert ahead.is_decided(wanted) == (number >= read)
    assert ahead.shown_at(wanted) == shown
    assert ahead.packets_until(shown) == packets


def test_end_of_stream_decides_every_time() -> None:
    ahead = Lookahead()
    _read(ahead, _GOP[:4], 1000)
    assert not ahead.is_decided(1000)
    ahead.end()
    assert ahead.is_decided(1000)
    assert ahead.shown_at(1000) == 30


def test_first_frame_serves_the_times_before_it() -> None:
    ahead = Lookahead()
    ahead.add(PacketInfo(5, 5, True), 1)
    assert ahead.shown_at(1) == 5
    assert ahead.is_needed(ahead.pop(), [1, 9])


def test_key_frame_drops_the_packets_before_it() -> None:
    ahead = Lookahead()
    assert _read(ahead, _GOP, 75) == [0, 0, 0, 0, 0, 0, 0, 7, 0]
    assert len(ahead) == 2
    assert ahead.shown_at(75) == 70


def test_key_frame_after_the_wanted_time_drops_nothing() -> None:
    assert sum(_read(Lookahead(), _GOP, 69)) == 0


def test_unrequested_frames_are_not_needed() -> None:
    wanted = [12, 55, 77]
    ahead = Lookahead()
    _read(ahead, _GOP[:-2], wanted[0])
    needed = [info.pts for _ in range(7) if ahead.is_needed(info := ahead.pop(), wanted)]
    # 60 may be shown at 77: the frame at 70 has not been read yet.
    assert needed == [10, 60, 50]


def test_frames_cut_by_an_edit_list_are_not_shown() -> None:
    ahead = Lookahead()
    ahead.add(PacketInfo(0, 0, True, is_shown=False), 15)
    ahead.add(PacketInfo(10, 10, False, is_shown=True), 15)
    ahead.add(PacketInfo(20, 20, False), 15)
    assert ahead.shown_at(15) == 10
    assert ahead.packets_until(10) == 2
    assert not ahead.is_needed(ahead.pop(), [15])


@pytest.mark.parametrize(
    ("before", "info", "message"),
    [
        (10, PacketInfo(20, 10, False), "DTS 10 is not after DTS 10"),
        (10, PacketInfo(15, 20, False), "PTS 15 is before DTS 20"),
        (10, PacketInfo(20, None, False), "a packet has no DTS"),
    ],
)
def test_inconsistent_timestamps_raise(before: int, info: PacketInfo, message: str) -> None:
    ahead = Lookahead()
    ahead.add(PacketInfo(before, before, True), 100)
    with pytest.raises(UnreliableTimestamps, match=message):
        ahead.add(info, 100)


def test_packets_before_the_first_dts_are_accepted() -> None:
    """Matroska has no DTS; FFmpeg knows them once it has seen a few frames."""
    ahead = Lookahead()
    for pts, dts in [(0, None), (30, None), (10, 0), (20, 10)]:
        ahead.add(PacketInfo(pts, dts, pts == 0), 10)
    assert ahead.is_decided(10)
    assert ahead.shown_at(10) == 10


def test_queue_is_full_at_its_limit() -> None:
    ahead = Lookahead()
    while not ahead.is_full:
        ahead.add(PacketInfo(len(ahead), len(ahead), not len(ahead)), 10**9)
    assert len(ahead) == 1024
    ahead.pop()
    assert not ahead.is_full
