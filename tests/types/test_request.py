"""Times of a request and of its answer in seconds."""

import math

import pytest

from tubelet.service.types.request import Sliding, ranges_of_seconds
from tubelet.service.types.result import Label, Segment
from tubelet.service.types.video import VideoMetadata


def test_seconds_become_nanoseconds() -> None:
    assert Sliding.of_seconds(window_s=2, stride_s=0.5) == Sliding(2_000_000_000, 500_000_000)
    assert ranges_of_seconds((0, 1.5), (3, 4)) == ((0, 1_500_000_000), (3_000_000_000, 4_000_000_000))
    assert Sliding.of_seconds(1 / 3) == Sliding(333_333_333)


def test_absent_lengths_mean_the_models_own() -> None:
    assert Sliding.of_seconds() == Sliding()
    assert Sliding.of_seconds(stride_s=1) == Sliding(None, 1_000_000_000)
    assert ranges_of_seconds() == ()


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_seconds_that_are_not_finite_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"must be a finite number of seconds; found {seconds}"):
        Sliding.of_seconds(window_s=seconds)
    with pytest.raises(ValueError, match="finite"):
        ranges_of_seconds((0, seconds))


def test_answers_have_times_in_seconds() -> None:
    segment = Segment(500_000_000, 1_250_000_000, (Label("pan_left", 1.0),))
    assert (segment.start_s, segment.end_s) == (0.5, 1.25)
    assert VideoMetadata("mp4", "h264", 64, 48, 25.0, 60, 2_400_000_000, 1000).duration_s == 2.4
