"""Choice of the batch size: the smallest whose cost a unit is close to the lowest of all sizes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from tubelet.models.spec import ModelSpec

_MIN_GAIN = 0.97  # a larger batch must cost less than this share a unit, or it is not worth the wait for it
_PREFERRED_SLACK = 1.1  # a preferred batch costs at most this factor more a unit than the largest
_BUDGET_S = 1.5  # of a run; batches of one unit are measured even if they take longer
_LONGEST_BATCH_S = 0.5  # a longer batch would delay the next request
_MIN_ROUNDS = 3
_MIN_SPENT_S = 0.5  # small models are measured in more than the least number of rounds
_SAMPLE_S = 0.02  # small batches are repeated for this long, so that disturbances hit all sizes alike

_MAX_UNITS = {"cpu": 32, "cuda": 128}  # in a batch; larger ones gained nothing on any machine
_MAX_BYTES = 128 << 20  # of pixels in a batch; each device holds several batches

_MAX_WALL_RATIO = 1.1  # of wall time to processor time; above it, another program had the thread's core
_MAX_OTHERS_SHARE = 0.15  # of all cores; above it, other programs slowed caches and memory down


@dataclass(frozen=True, slots=True)
class BatchCost:
    """The cost of one batch: ``compute_s``, by which sizes are compared, and ``wall_s`` from start to end."""

    compute_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class BatchTuning:
    """Chosen batch sizes: the largest that pays and the preferred one, with their wall times.

    ``item_s`` is the time of an item in a batch of ``max_size``, ``preferred_s`` that of a whole batch of
    ``preferred_size``. An item costs hardly more in a preferred batch than in the largest. The defaults are
    for batches that were not measured: none is worth waiting for.
    """

    max_size: int
    item_s: float = 0.0
    preferred_size: int = 1
    preferred_s: float = 0.0


def largest_batch(spec: ModelSpec, device_type: str) -> int:
    """Return the largest batch size that is worth measuring for a model, in units."""
    sampling, size = spec.sampling, spec.preprocessing
    unit_bytes = sampling.frames_per_unit * size.height * size.width * 3
    return min(_MAX_UNITS[device_type], max(1, _MAX_BYTES // unit_bytes))


def is_disturbed(spent: BatchCost, busy_s: float, cores: int) -> bool:
    """Return whether other programs may have distorted a measurement on one thread of a CPU.

    The whole measurement cost ``spent``. Meanwhile all programs together used ``busy_s`` seconds of processor
    time on the machine's ``cores``.
    """
    others_s = busy_s - spent.compute_s
    return (
        spent.wall_s > _MAX_WALL_RATIO * spent.compute_s
        or others_s > _MAX_OTHERS_SHARE * cores * spent.wall_s
    )


class BatchTuner:
    """Chooses the batch size of a model by measuring batches of up to ``largest`` units.

    A disturbance only makes a batch slower, and may last a second. So each size is measured in several
    rounds, and its cheapest sample counts, over all rounds and runs. Later rounds may go on to larger sizes.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._compute_s: dict[int, float] = {}  # the least of each size, sizes in rising order
        self._wall_s: dict[int, float] = {}
        self._left_s = 0.0  # what is left of the budget of this run
        self._measure: Callable[[int], BatchCost]

    def run(self, measure: Callable[[int], BatchCost]) -> BatchTuning:
        """Choose the batch size; ``measure`` computes a batch of a given size and returns its cost.

        Sizes are doubled until a unit gets no cheaper. More rounds follow while a larger batch appears to
        cost more a unit than a smaller one.
        """
        measure(1)  # not counted: the first batch also compiles and allocates
        self._measure, self._left_s = measure, _BUDGET_S
        self._try(1)
        self._grow()
        rounds = 1
        while rounds < _MIN_ROUNDS or self._left_s > _BUDGET_S - _MIN_SPENT_S or not self._is_smooth():
            if not self._repeat():
                break
            self._grow()
            rounds += 1
        return self._tuning()

    def _try(self, size: int) -> None:
        """Take a sample of ``size``: the mean cost of batches that are repeated for ``_SAMPLE_S``."""
        compute_s = wall_s = 0.0
        batches = 0
        while compute_s < _SAMPLE_S:
            cost = self._measure(size)
            compute_s += cost.compute_s
            wall_s += cost.wall_s
            batches += 1
        self._left_s -= compute_s
        self._compute_s[size] = min(compute_s / batches, self._compute_s.get(size, math.inf))
        self._wall_s[size] = min(wall_s / batches, self._wall_s.get(size, math.inf))

    def _grow(self) -> None:
        """Measure larger sizes until a unit gets no cheaper, or a limit is reached."""
        while (last := max(self._compute_s)) < min(self._largest, 4 * self._best()):
            size = min(2 * last, self._largest)
            expected_s = self._compute_s[last] * size / last
            if expected_s > min(_LONGEST_BATCH_S, self._left_s):
                break
            self._try(size)

    def _repeat(self) -> bool:
        """Measure all sizes once more; return False as soon as the budget is too small for that."""
        for size in tuple(self._compute_s):
            if self._compute_s[size] > self._left_s:
                return False
            self._try(size)
        return True

    def _is_smooth(self) -> bool:
        """Return whether no size costs much more a unit than a smaller size."""
        costs = [self._unit_s(size) for size in self._compute_s]
        return all(
            cost <= _PREFERRED_SLACK * least
            for cost, least in zip(costs, accumulate(costs, min), strict=True)
        )

    def _tuning(self) -> BatchTuning:
        """Return the largest size that pays, and the smallest that costs hardly more a unit."""
        best = self._best()
        limit_s = _PREFERRED_SLACK * self._unit_s(best)
        preferred = next(size for size in self._compute_s if self._unit_s(size) <= limit_s)
        return BatchTuning(best, self._wall_s[best] / best, preferred, self._wall_s[preferred])

    def _best(self) -> int:
        """Return the largest size in which a unit is clearly cheaper than in the best smaller one."""
        best, *others = self._compute_s
        for size in others:
            if self._unit_s(size) < _MIN_GAIN * self._unit_s(best):
                best = size
        return best

    def _unit_s(self, size: int) -> float:
        """Return the least cost measured for a unit in a batch of ``size``."""
        return self._compute_s[size] / size
