"""Tests of the exact conversion of timestamps, and of the repair of broken ones as in FFmpeg."""

from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.service.decode.demux.timestamps import FrameClock, Timeline, to_fraction

_MS = 10**6


def _line(timed: bool = True, origin: int = 0) -> Timeline:
    return Timeline(Fraction(1, 1000), origin, 40, timed)


@pytest.mark.parametrize(
    ("name", "frames", "starts_ms"),
    [
        ("presentation stamps", [(0, 0, 40), (40, 40, 40), (80, 80, 40)], [0, 40, 80]),
        ("decoding stamps only", [(None, 0, 40), (None, 40, 40)], [0, 40]),
        ("the last one without any", [(0, 0, 30), (30, None, 30), (None, None, 30)], [0, 30, 60]),
        ("no duration either", [(0, 0, 0), (None, None, 0), (None, None, 0)], [0, 40, 80]),
        ("presentation stamps that stand still", [(0, 0, 40), (0, 40, 40), (0, 80, 40)], [0, 40, 80]),
        ("decoding stamps that stand still", [(0, 0, 40), (40, 0, 40), (80, 0, 40)], [0, 40, 80]),
    ],
)
def test_frame_start_times(
    name: str, frames: list[tuple[int | None, int | None, int]], starts_ms: list[int]
) -> None:
    clock = FrameClock(_line())
    assert [clock.interval(*frame)[0] for frame in frames] == [start * _MS for start in starts_ms]


def test_frames_without_timestamps_follow_at_a_constant_rate() -> None:
    clock = FrameClock(_line(timed=False))
    assert [clock.interval(None, None, 1) for _ in range(3)] == [
        (0, 40 * _MS),
        (40 * _MS, 80 * _MS),
        (80 * _MS, 120 * _MS),
    ]


def test_origin_is_time_zero() -> None:
    assert FrameClock(_line(origin=5000)).interval(5000, 5000, 40) == (0, 40 * _MS)


@given(
    st.fractions(min_value=Fraction(1, 10**7), max_value=10),
    st.integers(-(10**12), 10**12),
    st.integers(0, 10**15),
)
def test_ticks_and_nanoseconds_convert_exactly(base: Fraction, origin: int, time_ns: int) -> None:
    line = Timeline(base, origin, 1, timed=True)
    ticks = line.to_ticks(time_ns)
    assert line.to_ns(ticks) <= time_ns < line.to_ns(ticks + 1)
    assert (ticks - origin) * base * 10**9 <= time_ns < (ticks + 1 - origin) * base * 10**9


class _Ratio(NamedTuple):
    """A ratio as some versions of PyAV return it; others return a Fraction."""

    numerator: int
    denominator: int


@pytest.mark.parametrize(
    ("numerator", "denominator", "found"),
    [
        (30000, 1001, Fraction(30000, 1001)),
        (-1, 25, Fraction(-1, 25)),
        (0, 1, None),
        (0, 0, None),
        (1, 0, None),
    ],
)
def test_unset_or_invalid_ratios_are_none(numerator: int, denominator: int, found: Fraction | None) -> None:
    assert to_fraction(_Ratio(numerator, denominator)) == found
    assert to_fraction(None) is None
