"""Parts of the plan of a long video, which several workers decode. Integer arithmetic, without I/O.

S units in a window.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S

_SHORTEST_NS = 30 * NS_PER_S  # of a part: opening the file again and the frames before it cost less than 5 %
_LONGEST_NS = 300 * NS_PER_S  # of a part, whose embeddings are kept until those before it are there
LONG_NS = 600 * NS_PER_S
"""The duration from which a video has parts."""


@dataclass(frozen=True, slots=True)
class PlanPart:
    """Consecutive units of a plan's grid, as a plan; the first one is unit ``first_unit`` of the grid."""

    first_unit: int
    plan: Plan


def split_plan(plan: Plan, workers: int) -> list[PlanPart]:
    """Split a plan into parts for so many ``workers``; into one if it is short, or has several grids.

    The later a part, the shorter, so that all workers end at about the same time (guided self-scheduling:
    Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987). The frames of the parts have the
    times of those of the plan, to the nanosecond.
    """
    grid = plan.grids[0]
    if len(plan.grids) > 1 or plan.is_unbounded or grid.view_ns is not None:
        return [PlanPart(0, plan)]
    starts = list(_first_windows(grid, workers))
    ends_ns = [*(grid.start_ns + start * grid.window_ns for start in starts[1:]), grid.end_ns]
    return [_part(grid, start, end_ns) for start, end_ns in zip(starts, ends_ns, strict=True)]


def _first_windows(grid: SamplingGrid, workers: int) -> Iterator[int]:
    """Yield where parts begin, in windows side by side from the start of ``grid``."""
    total = grid.num_units // grid.units_per_window
    shortest, longest = (max(1, length_ns // grid.window_ns) for length_ns in (_SHORTEST_NS, _LONGEST_NS))
    first = 0
    while True:
        yield first
        first += max(shortest, min(longest, (total - first) // (2 * workers)))
        if total - first < shortest:
            return


def _part(grid: SamplingGrid, first: int, end_ns: int) -> PlanPart:
    """Return the part of ``grid`` from window ``first`` of windows side by side to ``end_ns``.

    It begins with a whole window: only there is the start of a unit no rounded number.
    """
    own = replace(grid, start_ns=grid.start_ns + first * grid.window_ns, end_ns=end_ns)
    return PlanPart(first * grid.units_per_window, Plan((own,)))
