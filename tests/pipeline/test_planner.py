"""Plans of units, windows and segments: tables and properties, without I/O."""

from bisect import bisect
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets.video_utils import VideoClips

from tubelet.models.spec import Preprocessing, Sampling
from tubelet.service.errors import MalformedOption
from tubelet.service.pipeline.planner import check_options, make_plan, stride_warnings
from tubelet.service.types.request import Options, Sliding, Views, WholeVideo
from tubelet.service.types.video import NS_PER_S, VideoMetadata

SAMPLING = Sampling(
    frames_per_unit=2, units_per_window=8, window_s=2.0, stride_s=1.0, min_window_s=1.0, max_window_s=4.0
)
COVERED = Preprocessing(48, 48, "crop", (0, 0, 0), (1, 1, 1))


def metadata(duration_s: float) -> VideoMetadata:
    return VideoMetadata("mov", "h264", 64, 48, 30.0, round(duration_s * 30), round(duration_s * NS_PER_S), 1)


def seconds(first: float, second: float) -> tuple[int, int]:
    return round(first * NS_PER_S), round(second * NS_PER_S)


@pytest.mark.parametrize(
    ("duration_s", "windowing", "windows_s", "segments_s"),
    [
        # Sliding by the model's own lengths: a segment a stride.
        (3.0, Sliding(), [(0, 2), (1, 3)], [(0, 1), (1, 2), (2, 3)]),
        # A tail of less than half a stride joins the last segment, and the last window ends with the units.
        (3.4, Sliding(), [(0, 2), (1, 3), (1.25, 3.25)], [(0, 1), (1, 2), (2, 3.4)]),
        (3.6, Sliding(), [(0, 2), (1, 3), (1.5, 3.5)], [(0, 1), (1, 2), (2, 3), (3, 3.6)]),
        # Shorter than a window: one window as short as the video.
        (0.5, Sliding(), [(0, 0.5)], [(0, 0.25), (0.25, 0.5)]),
        (0.04, WholeVideo(), [(0, 0.04)], [(0, 0.04)]),
        # Whole: one segment, as few windows as the longest allows.
        (3.0, WholeVideo(), [(0, 3)], [(0, 3)]),
        (10.0, WholeVideo(), [(0, 10 / 3), (10 / 3, 20 / 3), (20 / 3, 10)], [(0, 10)]),
        # No overlap.
        (4.0, Sliding(*seconds(2, 2)), [(0, 2), (2, 4)], [(0, 2), (2, 4)]),
        # The stride snaps to whole units of 0.25 s.
        (2.5, Sliding(*seconds(2, 0.3)), [(0, 2), (0.25, 2.25), (0.5, 2.5)], None),
    ],
)
def test_windows_and_segments_of_a_duration(duration_s, windowing, windows_s, segments_s) -> None:
    (grid,) = make_plan(metadata(duration_s), SAMPLING, Options(windowing=windowing)).grids
    unit_ns = grid.window_ns / grid.units_per_window
    found = [
        (grid.window_start(window) * unit_ns, (grid.window_units(window)[-1] + 1) * unit_ns)
        for window in range(grid.num_windows)
    ]
    assert found == [pytest.approx(seconds(*window), abs=10) for window in windows_s]
    if segments_s is not None:
        segments = [grid.segment_range_ns(segment) for segment in range(grid.num_segments)]
        assert segments == [pytest.approx(seconds(*segment), abs=10) for segment in segments_s]


@given(
    st.integers(0, 10),
    st.integers(1, 40),
    st.builds(Sliding, st.none(), st.integers(1, 2 * NS_PER_S)) | st.builds(WholeVideo) | st.builds(Views),
)
def test_no_segment_is_empty_in_a_very_short_range(start: int, length: int, windowing) -> None:
    options = Options(windowing=windowing, ranges_ns=((start, start + length),))
    check_options(SAMPLING, COVERED, options)
    (grid,) = make_plan(metadata(1.0), SAMPLING, options).grids
    segments = [grid.segment_range_ns(segment) for segment in range(grid.num_segments)]
    assert (segments[0][0], segments[-1][1]) == (start, start + length)
    assert all(first < end for first, end in segments)


def test_overlapping_windows_sample_the_same_frames() -> None:
    """Sharing units is exact: a frame's time depends on its unit alone."""
    (grid,) = make_plan(metadata(4.0), SAMPLING, Options()).grids
    times = [grid.frame_time_ns(unit, frame) for unit in range(grid.num_units) for frame in range(2)]
    assert times[0] == NS_PER_S // 16  # the middle of the first eighth of a second
    assert {after - before for before, after in pairwise(times)} == {NS_PER_S // 8}


def test_ranges_are_sorted_and_cut_to_the_video() -> None:
    options = Options(ranges_ns=(seconds(6, 99), seconds(1, 4)))
    plan = make_plan(metadata(8.0), SAMPLING, options)
    assert [(grid.start_ns, grid.end_ns) for grid in plan.grids] == [seconds(1, 4), seconds(6, 8)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(windowing=Sliding(*seconds(0.5, 0.5))), "the window is 0.5 s; this model takes 1 to 4 s"),
        (Options(windowing=Sliding(*seconds(5, 1))), "the window is 5 s; this model takes 1 to 4 s"),
        (
            Options(windowing=Sliding(*seconds(2, 3))),
            "the stride is 3 s; it must be above 0 and at most the window's 2 s",
        ),
        (Options(windowing=Sliding(*seconds(2, 0))), "the stride is 0 s"),
        (Options(windowing=Views(0, 1)), "0 clips were requested; 1 to 30 are possible"),
        (Options(windowing=Views(31, 1)), "31 clips were requested; 1 to 30 are possible"),
        (Options(windowing=Views(4, 2)), "2 crops were requested"),
        (Options(windowing=Views(4, 0)), "0 crops were requested"),
        (
            Options(windowing=Views(30, 3), ranges_ns=tuple(seconds(at, at + 1) for at in range(112))),
            "10080 views; the limit is 10000",
        ),
        (Options(thumbnails=61), "61 thumbnails were requested; 0 to 60 are possible"),
        (Options(thumbnails=-1), "-1 thumbnails were requested"),
        (Options(ranges_ns=(seconds(2, 2),)), "empty or negative"),
        (Options(ranges_ns=(seconds(-1, 2),)), "empty or negative"),
        (Options(ranges_ns=(seconds(0, 2), seconds(1, 3))), "overlap"),
    ],
)
def test_impossible_options_are_refused(options: Options, says: str) -> None:
    with pytest.raises(MalformedOption, match=says):
        check_options(SAMPLING, COVERED, options)


def test_crops_of_a_stretched_picture_need_a_margin() -> None:
    views = Options(windowing=Views(crops=3))
    stretched = replace(COVERED, resize="stretch")
    with pytest.raises(MalformedOption, match="stretched") as refused:
        check_options(SAMPLING, stretched, views)
    assert (refused.value.field, refused.value.metadata) == ("views.crops", {"limit": "1", "value": "3"})
    check_options(SAMPLING, stretched, Options(windowing=Views(clips=10, crops=1)))
    check_options(SAMPLING, replace(stretched, resize_width=64), views)
    check_options(SAMPLING, COVERED, views)


@pytest.mark.parametrize(
    ("duration_s", "views", "starts_s"),
    [
        (10.0, Views(1), [4]),
        (10.0, Views(2), [0, 8]),
        (10.0, Views(5), [0, 2, 4, 6, 8]),
        (3.0, Views(3), [0, 0.5, 1]),  # more clips than fit side by side overlap
        (2.0, Views(10), [0]),  # all of them would be the same
        (0.5, Views(10), [0]),
        (10.0, Views(2, 3), [0, 0, 0, 8, 8, 8]),
    ],
)
def test_views_are_spread_from_the_first_possible_start_to_the_last(
    duration_s: float, views: Views, starts_s: list[float]
) -> None:
    plan = make_plan(metadata(duration_s), SAMPLING, Options(windowing=views))
    assert [grid.first_ns / NS_PER_S for grid in plan.grids] == starts_s
    crops = ["centre"] if views.crops == 1 else ["start", "centre", "end"]
    assert [grid.crop for grid in plan.grids] == crops * (len(starts_s) // len(crops))
    assert {grid.window_ns / NS_PER_S for grid in plan.grids} == {min(duration_s, 2)}
    assert {grid.num_windows for grid in plan.grids} == {1}
    assert {grid.segment_range_ns(0) for grid in plan.grids} == {(0, round(duration_s * NS_PER_S))}
    assert plan.views(0) == range(len(plan.grids))


def test_each_range_has_its_own_views() -> None:
    options = Options(windowing=Views(2), ranges_ns=(seconds(1, 4), seconds(5, 6)))
    plan = make_plan(metadata(8.0), SAMPLING, options)
    assert [grid.first_ns / NS_PER_S for grid in plan.grids] == [1, 2, 5]
    assert [grid.window_ns / NS_PER_S for grid in plan.grids] == [2, 2, 1]
    assert [plan.views(grid) for grid in range(3)] == [range(2), range(2), range(2, 3)]


def test_range_after_the_end_is_refused_and_names_the_end() -> None:
    with pytest.raises(MalformedOption, match="starts after the video's end at 3 s"):
        make_plan(metadata(3.0), SAMPLING, Options(ranges_ns=(seconds(3, 4),)))


@pytest.mark.parametrize(
    ("fps", "rate", "frames"), [(30, 15.0, 16), (25, 15.0, 16), (30, 7.5, 16), (24, 15.0, 8), (25, 12.5, 32)]
)
def test_strided_clips_have_the_frames_of_torchvision(fps: int, rate: float, frames: int) -> None:
    window_s = frames / rate
    sampling = Sampling(frames, 1, window_s, window_s, window_s / 4, window_s * 4, "start")
    video = VideoMetadata("mp4", "h264", 64, 64, fps, 300, 300 * NS_PER_S // fps, 1000)
    grid = make_plan(video, sampling, Options()).grids[0]
    # A millisecond is the coarsest tick of a container.
    due_ns = [round(frame * 1000 / fps) * 1_000_000 for frame in range(300)]
    wanted = VideoClips._resample_video_idx(frames, fps, rate)
    indices = range(0, 300, wanted.step)[:frames] if isinstance(wanted, slice) else wanted.tolist()
    found = [bisect(due_ns, grid.frame_time_ns(0, frame)) - 1 for frame in range(frames)]
    assert found == list(indices)


def test_middle_frames_are_those_of_segment_sampling() -> None:
    sampling = Sampling(1, 8, 2.0, 2.0, 0.5, 20.0)
    video = VideoMetadata("mp4", "h264", 64, 64, 25.0, 400, 16 * NS_PER_S, 1000)
    grid = make_plan(video, sampling, Options(windowing=WholeVideo())).grids[0]
    found = [grid.frame_time_ns(unit, 0) * 25 // NS_PER_S for unit in range(8)]
    assert found == [25 + 50 * segment for segment in range(8)]


@pytest.mark.parametrize(
    ("windowing", "used_s"),
    [
        (Sliding(), None),
        (Sliding(window_ns=3 * NS_PER_S), None),  # whose stride is our choice
        (Sliding(*seconds(2, 0.25)), None),
        (Sliding(*seconds(2, 0.252)), None),  # 0.8 %
        (Sliding(*seconds(2, 0.253)), "0.253 s was rounded to 0.25 s"),  # 1.2 %
        (Sliding(*seconds(2, 0.01)), "0.01 s was rounded to 0.25 s"),
        (Sliding(None, NS_PER_S // 10), "0.1 s was rounded to 0.25 s"),
        (Sliding(*seconds(4, 1.2)), "1.2 s was rounded to 1 s"),
        (Views(3, 1), None),
        (WholeVideo(), None),
    ],
)
def test_rounded_stride_gives_a_warning(windowing, used_s) -> None:
    options = Options(windowing=windowing)
    said = stride_warnings(10 * NS_PER_S, SAMPLING, options)
    if used_s is None:
        assert said == ()
        return
    (warning,) = said
    assert f"the stride of {used_s}: " in warning
    # The plan uses what the sentence says.
    (grid,) = make_plan(metadata(10), SAMPLING, options).grids
    stride_s = grid.stride_units * grid.window_ns / grid.units_per_window / NS_PER_S
    assert f"to {stride_s:g} s" in warning


def test_unused_stride_gives_no_warning() -> None:
    options = Options(windowing=Sliding(*seconds(2, 0.01)))
    assert stride_warnings(2 * NS_PER_S, SAMPLING, options) == ()
    short = replace(options, ranges_ns=(seconds(0, 1), seconds(5, 6.5)))
    assert stride_warnings(10 * NS_PER_S, SAMPLING, short) == ()
    assert stride_warnings(10 * NS_PER_S, SAMPLING, replace(short, ranges_ns=(seconds(0, 3),))) != ()


@given(st.integers(1, 4 * NS_PER_S), st.floats(1, 4), st.floats(0.001, 1))
def test_warning_means_that_the_plan_has_another_stride(
    duration_ns: int, window_s: float, part: float
) -> None:
    window, stride = seconds(window_s, window_s * part)
    options = Options(windowing=Sliding(window, stride))
    said = stride_warnings(duration_ns, SAMPLING, options)
    (grid,) = make_plan(metadata(duration_ns / NS_PER_S), SAMPLING, options).grids
    if grid.num_windows > 1:
        used = grid.stride_units * grid.window_ns / grid.units_per_window
        assert bool(said) == (abs(used - stride) > 0.01 * stride) or abs(used - stride) == pytest.approx(
            0.01 * stride, rel=1e-3
        )
