"""Costs of work on a machine in shared use: wall time, processor time, and the share of other programs."""

import json
import math
import resource
import statistics
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one piece of work; or the medians or ratios of several costs."""

    wall_s: float
    cpu_s: float


async def timed(work: Awaitable[T]) -> tuple[T, Cost]:
    """Await ``work``; return its result, and its cost in this process and its children."""
    cpu_s, start_s = _cpu_s(), time.perf_counter()
    result = await work
    return result, Cost(time.perf_counter() - start_s, _cpu_s() - cpu_s)


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(each) for each in zip(*map(_both, costs), strict=True)))


def ratio(costs: list[Cost], to: list[Cost]) -> Cost:
    """Return the median over rounds of the ratio of ``costs`` to the costs ``to`` in the same round."""
    pairs = zip(costs, to, strict=True)
    return median([Cost(cost.wall_s / other.wall_s, cost.cpu_s / other.cpu_s) for cost, other in pairs])


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of ``values`` with the bounds of its 95 % interval, which are two of the values.

    The bounds are order statistics, so that nothing is assumed about the distribution: see "Confidence
    interval for a median" in Conover, Practical Nonparametric Statistics, 1999, chapter 3.2.
    """
    ranked, outside, tail = sorted(values), 0, 0
    while (tail := tail + math.comb(len(ranked), outside)) <= 0.025 * 2 ** len(ranked):
        outside += 1
    lowest = max(0, outside - 1)
    return statistics.median(ranked), ranked[lowest], ranked[-1 - lowest]


def kept_rounds(file: Path | None) -> list[dict[str, float]]:
    """Return the rounds that ``keep_rounds`` wrote to a file; none without a file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []


def keep_rounds(file: Path | None, rounds: Sequence[dict[str, float]]) -> None:
    """Write rounds of a benchmark, what each contender did by its name, for a later run to go on."""
    if file is not None:
        file.write_text("\n".join(map(json.dumps, rounds)))


class Others:
    """Measures the processor time of the machine's other processes, from its creation on."""

    def __init__(self) -> None:
        self._busy_s, self._start_s = _busy_s() - _cpu_s(), time.monotonic()

    def share(self) -> float:
        """Return their share of all cores, 0 to 1."""
        busy_s, wall_s = _busy_s() - _cpu_s() - self._busy_s, time.monotonic() - self._start_s
        return busy_s / (wall_s * (psutil.cpu_count() or 1))


def _both(cost: Cost) -> tuple[float, float]:
    return cost.wall_s, cost.cpu_s


def _cpu_s() -> float:
    """Return the processor seconds of this process and its children, if ended only those waited for."""
    used_s = sum(_used_s(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            used_s += sum(process.cpu_times()[:4])  # user and system, then those of ended children
    return used_s


def _used_s(which: int) -> float:
    usage = resource.getrusage(which)
    return usage.ru_utime + usage.ru_stime


def _busy_s() -> float:
    """Return the processor seconds used on all cores since the machine started."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + times.steal
