"""Choice of the batch size: the smallest in which a unit costs about as little as in any other."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from tubelet.models.spec import ModelSpec

_MIN_GAIN = 0.97  # a batch twice as large must cost this share a unit, or it only makes others wait
_PREFERRED_SLACK = 1.1  # this much more a unit is a fair price for not waiting for a larger batch
_BUDGET_S = 1.5  # for all measurements; the cost of one unit is measured in any case
_LONGEST_BATCH_S = 0.5  # a larger batch would keep the next request waiting
_MIN_ROUNDS = 3
_MIN_SPENT_S = 0.5  # small models are measured in more rounds
_SAMPLE_S = 0.02  # small batches are repeated for this long: else only they would fit between disturbances

_MAX_UNITS = {"cpu": 32, "cuda": 128}  # more have not paid anywhere
_MAX_BYTES = 128 << 20  # of a batch's pixels: each device has several batches in memory

_MAX_WALL_RATIO = 1.1  # wall time to processor time: more, and the thread was kept from its core
_MAX_OTHERS_SHARE = 0.15  # of all cores: more, and caches, memory or a core's execution units were shared


@dataclass(frozen=True, slots=True)
class BatchCost:
    """The cost of one batch: ``compute_s`` to compare sizes by, ``wall_s`` from its start to its end."""

    compute_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class BatchTuning:
    """The largest batch that pays and the wall time of a unit in it; the preferred batch and its wall time.

    In a batch of ``preferred_size`` a unit costs hardly more than in the largest.
    """

    max_size: int
    unit_s: float
    preferred_size: int
    preferred_s: float


def largest_batch(spec: ModelSpec, device_type: str) -> int:
    """Return the most units of a batch that are worth a try."""
    sampling, size = spec.sampling, spec.preprocessing
    unit_bytes = sampling.frames_per_unit * size.height * size.width * 3
    return min(_MAX_UNITS[device_type], max(1, _MAX_BYTES // unit_bytes))


def is_disturbed(spent: BatchCost, busy_s: float, cores: int) -> bool:
    """Return whether other programs may have distorted a measurement on one thread of a CPU.

    The measurement took ``spent`` in all. Meanwhile all programs on the machine's ``cores`` together took
    ``busy_s`` of processor time.
    """
    others_s = busy_s - spent.compute_s
    return (
        spent.wall_s > _MAX_WALL_RATIO * spent.compute_s
        or others_s > _MAX_OTHERS_SHARE * cores * spent.wall_s
    )


class BatchTuner:
    """Chooses the batch size for a model, of at most ``largest`` units, by measuring batches.

    A disturbance makes a batch only dearer, and may last a second. So each size is measured in several
    rounds, and counts with its cheapest sample of all rounds and runs. A later round may go on to larger
    sizes.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._compute_s: dict[int, float] = {}  # the least of each size, in rising order of sizes
        self._wall_s: dict[int, float] = {}
        self._left_s = 0.0  # of the budget of a run
        self._measure: Callable[[int], BatchCost]

    def run(self, measure: Callable[[int], BatchCost]) -> BatchTuning:
        """Choose the batch size, where ``measure`` computes a batch of the given size and returns its cost.

        Sizes are doubled until that pays no more. There are more rounds while a larger batch seems to cost
        more a unit than a smaller one.
        """
        measure(1)  # does once what later batches need not do again
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
        """Take a sample of a size: the mean of some batches."""
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
        """Measure larger sizes until they pay no more."""
        while (last := max(self._compute_s)) < min(self._largest, 4 * self._best()):
            size = min(2 * last, self._largest)
            expected_s = self._compute_s[last] * size / last
            if expected_s > min(_LONGEST_BATCH_S, self._left_s):
                break
            self._try(size)

    def _repeat(self) -> bool:
        """Measure all sizes once more; return False when the budget does not suffice."""
        for size in tuple(self._compute_s):
            if self._compute_s[size] > self._left_s:
                return False
            self._try(size)
        return True

    def _is_smooth(self) -> bool:
        """Return whether a unit costs about as little in each size as in all smaller ones."""
        costs = [self._unit_s(size) for size in self._compute_s]
        return all(
            cost <= _PREFERRED_SLACK * least
            for cost, least in zip(costs, accumulate(costs, min), strict=True)
        )

    def _tuning(self) -> BatchTuning:
        best = self._best()
        enough_s = _PREFERRED_SLACK * self._unit_s(best)
        preferred = next(size for size in self._compute_s if self._unit_s(size) <= enough_s)
        return BatchTuning(best, self._wall_s[best] / best, preferred, self._wall_s[preferred])

    def _best(self) -> int:
        """Return the last size, in rising order, that made a unit enough cheaper."""
        best, *others = self._compute_s
        for size in others:
            if self._unit_s(size) < _MIN_GAIN * self._unit_s(best):
                best = size
        return best

    def _unit_s(self, size: int) -> float:
        return self._compute_s[size] / size
