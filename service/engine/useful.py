"""The largest useful batch: the smallest one in which a unit costs about as little as it ever does."""

from collections.abc import Callable

from models.contract import ModelSpec

_WORTH = 0.97  # a batch twice as large shall cost so much less a unit, or it only makes others wait
_BUDGET_S = 1.5  # of warm-up; what one unit costs is known in any case

_MOST = {"cpu": 32, "cuda": 128}  # units; more have not paid anywhere
_MOST_BYTES = 128 << 20  # of a batch's pixels: each device has several batches in memory


def largest_batch(spec: ModelSpec, device_type: str) -> int:
    """The most units of a batch that are worth a try."""
    sampling, size = spec.sampling, spec.preprocessing
    unit_bytes = sampling.frames_per_unit * size.height * size.width * 3
    return min(_MOST[device_type], max(1, _MOST_BYTES // unit_bytes))


def useful_batch(measure: Callable[[int], float], most: int) -> tuple[int, float]:
    """The largest useful batch of at most ``most`` units, and what a unit costs in it, seconds.

    ``measure`` computes a batch of so many units and says how long that took. Sizes are doubled until that
    pays no more; each is measured twice, since whatever else the machine does makes it only slower.
    """
    best, best_s, size, spent_s = 1, measure(1), 1, 0.0
    while True:
        took_s = [measure(size), measure(size)]
        spent_s += sum(took_s)
        unit_s = min(took_s) / size
        if size == 1 or unit_s < _WORTH * best_s:
            best, best_s = size, unit_s
        elif size >= 4 * best:
            break
        if size == most or spent_s + 4 * min(took_s) > _BUDGET_S:
            break
        size = min(2 * size, most)
    return best, best_s
