"""Measurement of batch sizes on a model's device: when it is loaded, and again later if that was disturbed.

On a CPU, batches are measured on one thread, by the processor time of that thread. This is how they are
computed under load, when each core computes a batch of its own. Processor time leaves out what other programs
take. Several threads would spend some of it waiting for each other.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from time import monotonic

import numpy as np
import psutil

from tubelet.models.spec import ModelSpec
from tubelet.service.engine.batch_tuner import BatchCost, BatchTuner, BatchTuning, is_disturbed
from tubelet.service.engine.daemon_threads import run_in_daemon_thread
from tubelet.service.engine.model_runner import ModelRunner
from tubelet.service.engine.stage_queue import BatchFailed, PendingBatch
from tubelet.service.types.video import UnitFrames

_PAUSES_S = (5.0, 10.0, 15.0, 20.0, 40.0, 80.0, 160.0, 320.0)  # before each further measurement


@dataclass(frozen=True, slots=True)
class Measurement:
    """The sizes that were chosen, and whether other programs may have distorted the measurement."""

    tuning: BatchTuning
    is_disturbed: bool


class BatchMeter:
    """Measures batches of black units on ``runner``, in seconds of ``clock``.

    ``runner`` must compute nothing else meanwhile. Later measurements take earlier ones into account.
    """

    def __init__(
        self, runner: ModelRunner, spec: ModelSpec, largest: int, clock: Callable[[], float] = monotonic
    ) -> None:
        self._runner = runner
        self._spec = spec
        self._tuner = BatchTuner(largest)
        self._clock = clock

    def tune(self, check: Callable[[], None] = lambda: None) -> Measurement:
        """Choose the batch size, blocking. ``check`` is called before each batch, and may raise to stop."""

        def measure(size: int) -> BatchCost:
            """Compute a batch of ``size`` units, unless ``check`` raises, and return its cost."""
            check()
            return self._measure(size)

        busy_s, compute_s, wall_s = _busy_s(), self._clock(), monotonic()
        tuning = self._tuner.run(measure)
        spent = BatchCost(self._clock() - compute_s, monotonic() - wall_s)
        return Measurement(tuning, is_disturbed(spent, _busy_s() - busy_s, os.cpu_count() or 1))

    def _measure(self, size: int) -> BatchCost:
        """Compute one batch of ``size`` units, and return its cost."""
        units = list(dummy_units(self._spec, range(size)))
        compute_s, wall_s = self._clock(), monotonic()
        try:
            found = self._runner.encode(units)
            if isinstance(found, PendingBatch):
                found.wait()
        except BatchFailed as error:  # there is no other device to retry on
            raise (error.__cause__ or error) from None
        return BatchCost(self._clock() - compute_s, monotonic() - wall_s)


class EngineInUse(Exception):
    """A measurement was stopped because the engine has work to do."""


async def remeasure(
    tune: Callable[[Callable[[], None]], Measurement],
    is_idle: Callable[[], bool],
    apply: Callable[[BatchTuning], None],
    pauses_s: Iterable[float] = _PAUSES_S,
) -> None:
    """Measure again after each of ``pauses_s``, until a measurement is not disturbed; ``apply`` each result.

    ``tune`` is ``BatchMeter.tune``. It runs on a thread of its own, and only while the engine ``is_idle``, so
    a request shares the cores with one measured batch at most. Cancelling waits for the end of that batch.
    """
    for pause_s in pauses_s:
        while True:
            await asyncio.sleep(pause_s)
            try:
                measured = await _measure_while_idle(tune, is_idle)
            except EngineInUse:
                continue
            break
        apply(measured.tuning)
        if not measured.is_disturbed:
            return


async def _measure_while_idle(
    tune: Callable[[Callable[[], None]], Measurement], is_idle: Callable[[], bool]
) -> Measurement:
    """Run ``tune`` on a thread.

    Raises:
        EngineInUse: the engine got work to do before the measurement ended.
    """
    stopped = threading.Event()

    def check() -> None:
        """Raise EngineInUse if the measurement was cancelled or the engine has work."""
        if stopped.is_set() or not is_idle():
            raise EngineInUse

    measuring = asyncio.ensure_future(run_in_daemon_thread(partial(tune, check)))
    try:
        return await asyncio.shield(measuring)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.gather(measuring, return_exceptions=True)
        raise


def dummy_units(spec: ModelSpec, units: Iterable[int]) -> Iterator[UnitFrames]:
    """Yield a black unit of the model's size for each of the unit numbers ``units``."""
    size = spec.preprocessing
    pixels = np.zeros((spec.sampling.frames_per_unit, size.height, size.width, 3), np.uint8)
    return (UnitFrames(grid=0, unit=unit, pixels=pixels, release=lambda: None) for unit in units)


def _busy_s() -> float:
    """Return the seconds of processor time that all programs have used since the machine started."""
    times = psutil.cpu_times()._asdict()
    return sum(times.get(kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))
