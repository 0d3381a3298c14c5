"""Parts of a plan: they have its units, at the same times, and are for long videos alone."""

from hypothesis import given
from hypothesis import strategies as st

from tubelet.service.pipeline.plan_parts import split_plan
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S


@given(
    start_ns=st.integers(0, NS_PER_S),
    duration_ns=st.integers(4 * NS_PER_S, 8000 * NS_PER_S),
    window_ns=st.integers(NS_PER_S // 3, 4 * NS_PER_S),
    units_per_window=st.integers(1, 16),
    frames_per_unit=st.integers(1, 3),
    frame_offset_ns=st.sampled_from([None, 600_000]),
    workers=st.integers(1, 9),
)
def test_parts_have_the_units_and_times_of_the_plan(
    start_ns: int,
    duration_ns: int,
    window_ns: int,
    units_per_window: int,
    frames_per_unit: int,
    frame_offset_ns: int | None,
    workers: int,
) -> None:
    end_ns = start_ns + duration_ns
    grid = SamplingGrid(start_ns, end_ns, window_ns, frames_per_unit, units_per_window, 1)
    grid = SamplingGrid(
        start_ns,
        end_ns,
        window_ns,
        frames_per_unit,
        units_per_window,
        1,
        frame_offset_ns=frame_offset_ns,
    )
    parts, units = split_plan(Plan((grid,)), workers), 0
    for part in parts:
        (own,) = part.plan.grids
        assert part.first_unit == units
        units += own.num_units
        for unit in (0, own.num_units // 2, own.num_units - 1):
            for frame in range(frames_per_unit):
                found = own.frame_time_ns(unit, frame)
                assert found == grid.frame_time_ns(part.first_unit + unit, frame)
    assert units == grid.num_units


def test_later_parts_are_shorter() -> None:
    grid = SamplingGrid(0, 7200 * NS_PER_S, 2 * NS_PER_S, 2, 8, 4)
    parts = split_plan(Plan((grid,)), 4)
    lengths = [part.plan.grids[0].end_ns - part.plan.grids[0].start_ns for part in parts]
    assert lengths[:-1] == sorted(lengths[:-1], reverse=True)
    assert lengths[0] == 300 * NS_PER_S
    assert lengths[-2] == 30 * NS_PER_S
    assert 30 * NS_PER_S <= lengths[-1] < 60 * NS_PER_S


def test_short_videos_views_and_several_ranges_are_one_part() -> None:
    long = SamplingGrid(0, 600 * NS_PER_S, 2 * NS_PER_S, 2, 8, 4)
    later = SamplingGrid(600 * NS_PER_S, 1200 * NS_PER_S, 2 * NS_PER_S, 2, 8, 4)
    short = SamplingGrid(0, 59 * NS_PER_S, 2 * NS_PER_S, 2, 8, 4)
    view = SamplingGrid(0, 600 * NS_PER_S, 2 * NS_PER_S, 2, 8, 8, one_segment=True, view_ns=NS_PER_S)
    for plan in (Plan((long, later)), Plan((long,), is_unbounded=True), Plan((short,)), Plan((view,))):
        assert [part.plan for part in split_plan(plan, 4)] == [plan]
    assert len(split_plan(Plan((long,)), 4)) > 4
