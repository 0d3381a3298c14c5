"""Which packets must be decoded: tables of streams by their stamps."""

import pytest

from tubelet.service.decode.frames.lookahead import Lookahead, PacketInfo, UnreliableTimestamps

# In the order of decoding: I P b b P b b, shown every 10 ticks; then a key frame and one after it.
_GOP = [(0, -20), (30, -10), (10, 0), (20, 10), (60, 20), (40, 30), (50, 40), (70, 50), (80, 60)]
_KEYS = {0, 70}


def _read(ahead: Lookahead, packets: list[tuple[int, int]], wanted: int) -> list[int]:
    """How many packets each one made needless."""
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
def test_a_time_is_settled_when_a_packet_is_decoded_later(
    wanted: int, shown: int, read: int, packets: int
) -> None:
    ahead = Lookahead()
    for number, (pts, dts) in enumerate(_GOP, 1):
        ahead.add(PacketInfo(pts, dts, pts in _KEYS), wanted)
        assert ahead.is_decided(wanted) == (number >= read)
    assert ahead.shown_at(wanted) == shown
    assert ahead.packets_until(shown) == packets


def test_the_end_settles_all() -> None:
    ahead = Lookahead()
    _read(ahead, _GOP[:4], 1000)
    assert not ahead.is_decided(1000)
    ahead.end()
    assert ahead.is_decided(1000)
    assert ahead.shown_at(1000) == 30


def test_the_first_frame_stands_for_the_times_before_it() -> None:
    ahead = Lookahead()
    ahead.add(PacketInfo(5, 5, True), 1)
    assert ahead.shown_at(1) == 5
    assert ahead.is_needed(ahead.pop(), [1, 9])


def test_a_key_frame_makes_needless_what_came_before() -> None:
    ahead = Lookahead()
    assert _read(ahead, _GOP, 75) == [0, 0, 0, 0, 0, 0, 0, 7, 0]
    assert len(ahead) == 2
    assert ahead.shown_at(75) == 70


def test_a_key_frame_after_the_wanted_time_does_not() -> None:
    assert sum(_read(Lookahead(), _GOP, 69)) == 0


def test_frames_that_nobody_wants_are_not_needed() -> None:
    wanted = [12, 55, 77]
    ahead = Lookahead()
    _read(ahead, _GOP[:-2], wanted[0])
    needed = [info.pts for _ in range(7) if ahead.is_needed(info := ahead.pop(), wanted)]
    # 60 may be shown at 77, for all that is known: the frame at 70 has not been read yet.
    assert needed == [10, 60, 50]


def test_what_an_edit_list_cuts_away_is_not_shown() -> None:
    ahead = Lookahead()
    ahead.add(PacketInfo(0, 0, True, is_shown=False), 15)
    ahead.add(PacketInfo(10, 10, False, is_shown=True), 15)
    ahead.add(PacketInfo(20, 20, False), 15)
    assert ahead.shown_at(15) == 10
    assert ahead.packets_until(10) == 2
    assert not ahead.is_needed(ahead.pop(), [15])


@pytest.mark.parametrize(
    ("before", "info", "says"),
    [
        (10, PacketInfo(20, 10, False), "DTS 10 is not after DTS 10"),
        (10, PacketInfo(15, 20, False), "PTS 15 is before DTS 20"),
        (10, PacketInfo(20, None, False), "a packet has no DTS"),
    ],
)
def test_stamps_that_tell_nothing(before: int, info: PacketInfo, says: str) -> None:
    ahead = Lookahead()
    ahead.add(PacketInfo(before, before, True), 100)
    with pytest.raises(UnreliableTimestamps, match=says):
        ahead.add(info, 100)


def test_packets_before_the_first_decoding_stamp() -> None:
    """Matroska has a packet has no DTSs; FFmpeg knows them once it has seen a few frames."""
    ahead = Lookahead()
    for pts, dts in [(0, None), (30, None), (10, 0), (20, 10)]:
        ahead.add(PacketInfo(pts, dts, pts == 0), 10)
    assert ahead.is_decided(10)
    assert ahead.shown_at(10) == 10


def test_waiting_ends_when_too_much_waits() -> None:
    ahead = Lookahead()
    while not ahead.is_full:
        ahead.add(PacketInfo(len(ahead), len(ahead), not len(ahead)), 10**9)
    assert len(ahead) == 1024
    ahead.pop()
    assert not ahead.is_full
