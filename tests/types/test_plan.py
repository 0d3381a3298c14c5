"""Grids and plans: properties of units, windows and segments, of parts and of cuts."""

from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S


@st.composite
def grids(draw: st.DrawFn) -> SamplingGrid:
    window_ns = draw(st.integers(1_000_000, 5 * NS_PER_S))
    units = draw(st.integers(1, 16))
    start = draw(st.integers(0, NS_PER_S))
    end = start + window_ns + draw(st.integers(0, 40 * window_ns))
    one_segment = draw(st.booleans())
    return SamplingGrid(
        start_ns=start,
        end_ns=end,
        window_ns=window_ns,
        frames_per_unit=draw(st.integers(1, 4)),
        units_per_window=units,
        stride_units=draw(st.integers(1, units)),
        one_segment=one_segment,
        view_ns=draw(st.none() | st.integers(start, end - window_ns)) if one_segment else None,
    )


@given(grids())
def test_every_unit_is_in_a_window_and_every_segment_has_windows(grid: SamplingGrid) -> None:
    covered = {unit for window in range(grid.num_windows) for unit in grid.window_units(window)}
    assert covered == set(range(grid.num_units))
    ends = {unit: grid.window_ending_at(unit) for unit in range(grid.num_units)}
    assert [window for window in ends.values() if window is not None] == list(range(grid.num_windows))
    for unit, window in ends.items():
        assert window is None or grid.window_units(window)[-1] == unit
    last_time = grid.frame_time_ns(grid.num_units - 1, grid.frames_per_unit - 1)
    assert grid.start_ns <= grid.frame_time_ns(0, 0) <= last_time < grid.end_ns


@given(grids())
def test_segments_tile_the_range_and_average_the_windows_over_their_middle(grid: SamplingGrid) -> None:
    ranges = [grid.segment_range_ns(segment) for segment in range(grid.num_segments)]
    assert ranges[0][0] == grid.start_ns
    assert ranges[-1][1] == grid.end_ns
    assert all(before[1] == after[0] for before, after in pairwise(ranges))
    if grid.one_segment:
        return
    for segment in range(grid.num_segments):
        end_unit = grid.num_units if segment == grid.num_segments - 1 else (segment + 1) * grid.stride_units
        middle = (segment * grid.stride_units + end_unit) / 2
        starts = [grid.window_start(window) for window in range(grid.num_windows)]
        if segment < grid.num_segments - 1:
            starts[-1] = max(starts[-1], (grid.num_windows - 1) * grid.stride_units)
        by_definition = [
            window
            for window, start in enumerate(starts)
            if start <= middle < grid.window_start(window) + grid.units_per_window
        ]
        assert list(grid.segment_windows(segment)) == by_definition


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 40), st.integers(0, 10))
def test_settled_segments_do_not_change_when_the_video_goes_on(
    units_per_window: int, stride: int, units: int, more: int
) -> None:
    """A segment of an unbounded plan is emitted once its windows are complete and it is settled."""
    known, whole, open_ended = (
        SamplingGrid(0, end, units_per_window, 1, units_per_window, min(stride, units_per_window))
        for end in (units_per_window + units, units_per_window + units + more, 10**6)
    )
    for segment in range(known.num_segments):
        windows = open_ended.segment_windows(segment)
        is_complete = open_ended.window_units(windows[-1])[-1] < known.num_units
        if is_complete and open_ended.is_settled(segment, known.num_units):
            assert whole.segment_range_ns(segment) == open_ended.segment_range_ns(segment)
            assert whole.segment_windows(segment) == windows
            assert [whole.window_units(each) for each in windows] == [
                open_ended.window_units(each) for each in windows
            ]


@st.composite
def plans_of_views(draw: st.DrawFn) -> Plan:
    """Generate a plan of views of one range, all of one length."""
    window_ns, units, frames = draw(st.integers(1, 10**10)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    starts = sorted(draw(st.lists(st.integers(0, 10**11), min_size=1, max_size=12)))
    end_ns = starts[-1] + window_ns
    return Plan(
        tuple(SamplingGrid(0, end_ns, window_ns, frames, units, units, True, view_ns) for view_ns in starts)
    )


@given(plans_of_views(), st.integers(1, 5))
def test_parts_of_a_plan_have_at_most_as_many_open_units_as_slots(plan: Plan, slots: int) -> None:
    passes = list(plan.split_by_memory(slots))
    assert tuple(grid for _, part in passes for grid in part.grids) == plan.grids
    assert [plan.grids[first] for first, _ in passes] == [part.grids[0] for _, part in passes]
    for _, part in passes:
        last = part.grids[0].frames_per_unit - 1
        spans = [(grid.first_ns, grid.frame_time_ns(grid.num_units - 1, last)) for grid in part.grids]
        under_way = max(sum(start <= time < end for start, end in spans) for time, _ in spans)
        assert under_way <= part.units_at_once <= slots


def test_views_of_a_range_stay_together_when_the_video_ends_early() -> None:
    view = partial(SamplingGrid, 10, 50, 10, 1, 2, 2, True)
    plan = Plan(
        (SamplingGrid(0, 8, 8, 1, 2, 2), view(10), view(25), view(40), SamplingGrid(60, 70, 10, 1, 2, 2))
    )
    assert [plan.views(grid) for grid in range(5)] == [range(1), *[range(1, 4)] * 3, range(4, 5)]
    cut = plan.cut(31)
    assert cut is not None
    assert [grid.first_ns for grid in cut.grids] == [0, 10, 25]
    assert [cut.grids[view].segment_range_ns(0) for view in cut.views(1)] == [(10, 31)] * 2


@pytest.mark.parametrize(
    "grids",
    [
        (SamplingGrid(0, 10, 10, 1, 1, 1), SamplingGrid(5, 15, 10, 1, 1, 1)),
        (SamplingGrid(0, 10, 5, 1, 1, 1), SamplingGrid(0, 10, 5, 1, 1, 1)),
        (SamplingGrid(0, 10, 5, 1, 1, 1, True, 5), SamplingGrid(0, 10, 5, 1, 1, 1, True, 0)),
        (SamplingGrid(0, 10, 5, 1, 1, 1, True, 0), SamplingGrid(5, 20, 5, 1, 1, 1, True, 6)),
    ],
)
def test_overlapping_ranges_and_unordered_views_are_refused(grids: tuple[SamplingGrid, ...]) -> None:
    with pytest.raises(ValueError, match="grids overlap"):
        Plan(grids)


@given(grids(), st.floats(0, 1))
def test_cut_keeps_units_and_windows_that_were_started(grid: SamplingGrid, part: float) -> None:
    cut = grid.cut(grid.start_ns + round(part * (grid.end_ns - grid.start_ns)))
    assert cut.num_units >= cut.units_per_window
    for unit in range(cut.num_units - 1):
        window = grid.window_ending_at(unit)
        if window is not None and unit < grid.num_units - 1:
            assert cut.window_units(window) == grid.window_units(window)
