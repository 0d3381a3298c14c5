"""The plan of a request: the frames, units, windows and segments of a video, computed from time ranges.

Times are integer nanoseconds from the first presented frame of the video (``_ns``).
S units in a window, t frames in a unit, T = S * t frames in a window.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import pairwise, takewhile

from tubelet.service.types.video import Crop


@dataclass(frozen=True, slots=True)
class SamplingGrid:
    """One time range divided into units, windows and segments; all are computed, none are stored.

    Unit u covers [start + u * unit, start + (u + 1) * unit). It is divided into t equal parts with one frame
    each, ``frame_offset_ns`` after the start of the part, or in its middle if that is None. Window w is S
    consecutive units. Windows start every ``stride_units``; the last one ends with the last unit. Segments
    start every ``stride_units`` too. The logits of a segment are the mean of the windows that contain its
    middle. With ``one_segment`` the whole range is one segment, and its windows are views of it. A grid with
    ``view_ns`` has a single window that starts there, and shares its segment with all grids over its range.
    ``crop`` is the part of the picture that the frames show.
    """

    start_ns: int
    end_ns: int
    window_ns: int
    frames_per_unit: int
    units_per_window: int
    stride_units: int
    one_segment: bool = False
    view_ns: int | None = None
    crop: Crop = "centre"
    frame_offset_ns: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start_ns < self.end_ns:
            raise ValueError(f"the range of a sampling grid is empty or negative: {self}")
        if not 0 < self.window_ns <= self.end_ns - self.start_ns:
            raise ValueError(f"the window is empty or longer than its range: {self}")
        if not 1 <= self.stride_units <= self.units_per_window:
            raise ValueError(f"the stride must be 1 to {self.units_per_window} units: {self}")
        if self.view_ns is not None and not (self.one_segment and self.start_ns <= self.view_ns):
            raise ValueError(f"a view must lie in its range, and the range must be one segment: {self}")

    @property
    def first_ns(self) -> int:
        """The start of unit 0."""
        return self.start_ns if self.view_ns is None else self.view_ns

    @property
    def frame_spacing_ns(self) -> int:
        """The time from one sampled frame to the next."""
        return self.window_ns // (self.frames_per_unit * self.units_per_window)

    @property
    def num_units(self) -> int:
        """The number of units that fit into the range, or into the view."""
        if self.view_ns is not None:
            return self.units_per_window
        return (self.end_ns - self.start_ns) * self.units_per_window // self.window_ns

    @property
    def num_windows(self) -> int:
        return -(-(self.num_units - self.units_per_window) // self.stride_units) + 1

    @property
    def num_segments(self) -> int:
        if self.one_segment:
            return 1
        # A tail of less than half a stride belongs to the segment before it.
        return max(1, (2 * self.num_units + self.stride_units) // (2 * self.stride_units))

    def frame_time_ns(self, unit: int, frame: int) -> int:
        """Return the time at which frame ``frame`` (0..t-1) of unit ``unit`` is sampled."""
        sampled = unit * self.frames_per_unit + frame
        frames_per_window = self.frames_per_unit * self.units_per_window
        if self.frame_offset_ns is not None:
            return self.first_ns + sampled * self.window_ns // frames_per_window + self.frame_offset_ns
        return self.first_ns + (2 * sampled + 1) * self.window_ns // (2 * frames_per_window)

    def unit_start_ns(self, unit: int) -> int:
        """Return the start of ``unit``, which is the end of the one before."""
        return self.first_ns + unit * self.window_ns // self.units_per_window

    def window_start(self, window: int) -> int:
        """Return the first unit of ``window``."""
        return min(window * self.stride_units, self.num_units - self.units_per_window)

    def window_units(self, window: int) -> range:
        """Return the units of ``window``."""
        first = self.window_start(window)
        return range(first, first + self.units_per_window)

    def window_ending_at(self, unit: int) -> int | None:
        """Return the window whose last unit is ``unit``, or None."""
        if unit == self.num_units - 1:
            return self.num_windows - 1
        window, rest = divmod(unit + 1 - self.units_per_window, self.stride_units)
        return window if rest == 0 and window >= 0 else None

    def segment_range_ns(self, segment: int) -> tuple[int, int]:
        """Return the time range [start, end) of ``segment``; the last one ends with the grid's range."""
        last = segment == self.num_segments - 1
        stride_ns = self.window_ns * self.stride_units
        start = self.start_ns + segment * stride_ns // self.units_per_window
        end = self.end_ns if last else self.start_ns + (segment + 1) * stride_ns // self.units_per_window
        return start, end

    def segment_windows(self, segment: int) -> range:
        """Return the windows whose mean logits are those of ``segment``.

        The last window may start less than a stride after the one before it. Only the last segment counts it
        from its true start, so that earlier segments do not change when the video goes on.
        """
        if self.one_segment:
            return range(self.num_windows)
        # In half units, so that the middle is an integer.
        is_last = segment == self.num_segments - 1
        middle = segment * self.stride_units
        middle += self.num_units if is_last else (segment + 1) * self.stride_units
        final = self.num_windows - 1
        first = max(0, (middle - 2 * self.units_per_window) // (2 * self.stride_units) + 1)
        last = middle // (2 * self.stride_units)
        if is_last and 2 * self.window_start(final) <= middle:
            last = final
        return range(min(first, final), min(last, final) + 1)

    def is_settled(self, segment: int, num_units: int) -> bool:
        """Whether ``segment`` can no longer change, given that the range has at least ``num_units`` units."""
        return 2 * num_units >= (2 * segment + 3) * self.stride_units

    def cut(self, end_ns: int) -> "SamplingGrid":
        """Return the grid for a range that ends at ``end_ns``, but not before its first window."""
        return replace(self, end_ns=max(min(end_ns, self.end_ns), self.start_ns + self.window_ns))


@dataclass(frozen=True, slots=True)
class Plan:
    """The sampling grids of a request, in the order of time, over ranges that do not overlap.

    Several grids over one range are its views, which may overlap. An unbounded plan is for a video whose end
    is not known: its single grid is as long as a video may be, and is cut when the video ends.
    """

    grids: tuple[SamplingGrid, ...]
    is_unbounded: bool = False

    def __post_init__(self) -> None:
        if not self.grids:
            raise ValueError("a plan needs at least one sampling grid")
        for before, after in pairwise(self.grids):
            are_views = before.view_ns is not None and after.start_ns == before.start_ns
            if after.first_ns < (before.first_ns if are_views else before.end_ns):
                raise ValueError(f"sampling grids overlap: {before} and {after}")

    @property
    def total_ns(self) -> int:
        """The total duration of all units; a time that several units cover counts for each."""
        return sum(grid.num_units * grid.window_ns // grid.units_per_window for grid in self.grids)

    @property
    def num_frames(self) -> int:
        """The number of frames of all units; a frame that several units share counts for each."""
        return sum(grid.num_units * grid.frames_per_unit for grid in self.grids)

    @property
    def units_at_once(self) -> int:
        """The most units that are incomplete at one time while the video is decoded from start to end."""
        return max(_units_under_way(self.grids))

    def split_by_memory(self, at_once: int) -> Iterator[tuple[int, "Plan"]]:
        """Split the plan into parts with at most ``at_once`` incomplete units at one time.

        Each part comes with the number of its first grid.
        """
        first = 0
        while first < len(self.grids):
            rest = self.grids[first:]
            fitting = takewhile(lambda units: units <= at_once, _units_under_way(rest))
            part = Plan(rest[: len(list(fitting))], self.is_unbounded)
            yield first, part
            first += len(part.grids)

    def fits(self, duration_ns: int) -> bool:
        """Whether the plan fits a video of ``duration_ns``; an unbounded one needs at least one window."""
        return not self.is_unbounded or self.grids[0].window_ns <= duration_ns

    def has(self, grid: int, unit: int) -> bool:
        """Whether the plan has this unit of this grid."""
        return grid in range(len(self.grids)) and unit in range(self.grids[grid].num_units)

    def views(self, grid: int) -> range:
        """Return the numbers of all grids over the range of ``grid``."""
        start_ns = self.grids[grid].start_ns
        return range(
            bisect_left(self.grids, start_ns, key=lambda each: each.start_ns),
            bisect_right(self.grids, start_ns, key=lambda each: each.start_ns),
        )

    def cut(self, end_ns: int) -> "Plan | None":
        """Return the plan for a video that ends at ``end_ns``; None if no grid starts before that."""
        grids = tuple(grid.cut(end_ns) for grid in self.grids if grid.first_ns < end_ns)
        return Plan(grids) if grids else None


def _units_under_way(grids: tuple[SamplingGrid, ...]) -> Iterator[int]:
    """Yield the number of incomplete units, one for each grid, at the start of each grid."""
    ends_ns: list[int] = []  # a heap
    for grid in grids:
        while ends_ns and ends_ns[0] <= grid.first_ns:
            heappop(ends_ns)
        heappush(ends_ns, grid.frame_time_ns(grid.num_units - 1, grid.frames_per_unit - 1))
        yield len(ends_ns)
