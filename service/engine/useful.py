"""The largest useful batch: the smallest one in which a unit costs about as little as it ever does."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from models.contract import ModelSpec

_WORTH = 0.97  # a batch twice as large shall cost so much less a unit, or it only makes others wait
_ABOUT = 1.1  # so much more a unit is a fair price for not waiting for more of them
_BUDGET_S = 1.5  # of warm-up; what one unit costs is known in any case
_ROUNDS = 3

_MOST = {"cpu": 32, "cuda": 128}  # units; more have not paid anywhere
_MOST_BYTES = 128 << 20  # of a batch's pixels: each device has several batches in memory


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """The largest useful batch, what a unit costs in it; one where it costs hardly more, and its time."""

    most: int
    unit_s: float
    enough: int
    enough_s: float


def largest_batch(spec: ModelSpec, device_type: str) -> int:
    """The most units of a batch that are worth a try."""
    sampling, size = spec.sampling, spec.preprocessing
    unit_bytes = sampling.frames_per_unit * size.height * size.width * 3
    return min(_MOST[device_type], max(1, _MOST_BYTES // unit_bytes))


def useful_batch(measure: Callable[[int], float], most: int) -> BatchSizes:
    """The sizes of batches of at most ``most`` units that are worth it.

    ``measure`` computes a batch of so many units and says how long that took. Sizes are doubled until that
    pays no more. Whatever else the machine does makes a batch only slower, and may do so for a second: each
    is measured in several rounds, of which a later one may show that larger ones pay after all, and in more
    of them while a larger batch seems to cost more a unit than a smaller one.
    """
    spent_s = measure(1)  # not looked at: what is done once only is in it
    fastest_s = {1: measure(1)}
    spent_s += fastest_s[1]

    def try_out(size: int, expected_s: float) -> bool:
        nonlocal spent_s
        if spent_s + expected_s > _BUDGET_S:
            return False
        took_s = measure(size)
        spent_s += took_s
        fastest_s[size] = min(took_s, fastest_s.get(size, took_s))
        return True

    def grow() -> None:
        while (last := max(fastest_s)) < min(most, 4 * _best(fastest_s)):
            if not try_out(min(2 * last, most), 2 * fastest_s[last]):
                break

    grow()
    rounds = 1
    while rounds < _ROUNDS or not _is_smooth(fastest_s):
        if not all(try_out(size, fastest_s[size]) for size in tuple(fastest_s)):
            break
        grow()
        rounds += 1
    best = _best(fastest_s)
    unit_s = fastest_s[best] / best
    enough = next(size for size in fastest_s if fastest_s[size] / size <= _ABOUT * unit_s)
    return BatchSizes(best, unit_s, enough, fastest_s[enough])


def _best(fastest_s: dict[int, float]) -> int:
    """Of sizes in rising order: the last that made a unit enough cheaper."""
    best, *others = fastest_s
    for size in others:
        if fastest_s[size] / size < _WORTH * fastest_s[best] / best:
            best = size
    return best


def _is_smooth(fastest_s: dict[int, float]) -> bool:
    """Does a unit cost about as little in each size as in all smaller ones?"""
    unit_s = [took_s / size for size, took_s in fastest_s.items()]
    return all(each <= _ABOUT * least for each, least in zip(unit_s, accumulate(unit_s, min), strict=True))
