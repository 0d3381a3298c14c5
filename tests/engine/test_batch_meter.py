"""Tests of the measurement of batch sizes: on one thread, and again while the engine is idle."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import thread_time

import pytest
import torch
from torch import Tensor

from tests.support.engine import Gate, make_queue, runners, submit
from tubelet.models.families.factorised import Factorised
from tubelet.models.repository.repository import ModelStore
from tubelet.service.config.config import EngineConfig
from tubelet.service.engine.batch_meter import BatchMeter, Measurement, remeasure
from tubelet.service.engine.batch_tuner import BatchTuning
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.executor import Executor
from tubelet.service.fair_queue import Flow
from tubelet.service.metrics import Metrics

SIZES = [BatchTuning(size, 0.01, size, 0.02) for size in (1, 2, 4)]


class Scripted:
    """Measurements with the given results; all but the last one are disturbed."""

    def __init__(self, *tunings: BatchTuning) -> None:
        self._left = [Measurement(tuning, tuning is not tunings[-1]) for tuning in tunings]

    def tune(self, check: Callable[[], None]) -> Measurement:
        check()
        return self._left.pop(0)


async def test_remeasuring_stops_after_an_undisturbed_measurement() -> None:
    applied: list[BatchTuning] = []
    await remeasure(Scripted(*SIZES).tune, lambda: True, applied.append, 10 * [0.0])
    assert applied == SIZES


async def test_remeasuring_stops_after_the_last_pause() -> None:
    applied: list[BatchTuning] = []
    await remeasure(Scripted(*SIZES).tune, lambda: True, applied.append, 2 * [0.0])
    assert applied == SIZES[:2]


async def test_a_busy_engine_is_not_measured_and_uses_up_no_pause() -> None:
    applied: list[BatchTuning] = []
    idle = iter([False, False, True])
    await remeasure(Scripted(SIZES[0]).tune, lambda: next(idle), applied.append, [0.0])
    assert applied == SIZES[:1]


async def test_a_request_stops_a_measurement() -> None:
    idle = iter([True, True, False, *5 * [True]])  # as seen before each batch
    batches: list[int] = []  # the number computed in each measurement

    def tune(check: Callable[[], None]) -> Measurement:
        batches.append(0)
        for _ in range(5):
            check()
            batches[-1] += 1
        return Measurement(SIZES[0], False)

    applied: list[BatchTuning] = []
    await remeasure(tune, lambda: next(idle), applied.append, [0.0])
    assert batches == [2, 5]
    assert applied == SIZES[:1]


async def test_cancelling_waits_for_the_batch_being_measured() -> None:
    entered, leave, ended = threading.Event(), threading.Event(), threading.Event()

    def tune(check: Callable[[], None]) -> Measurement:
        entered.set()
        leave.wait()
        try:
            check()
        finally:
            ended.set()
        raise AssertionError("the measurement went on after it was cancelled")

    task = asyncio.create_task(remeasure(tune, lambda: True, lambda tuning: None, [0.0]))
    await asyncio.to_thread(entered.wait)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_executor_is_idle_while_nothing_is_queued_decoded_or_computed() -> None:
    gate = Gate()
    async with Executor(Metrics()) as executor:
        queue = make_queue("encode", 1, gate.run)
        executor.add(queue)
        assert executor.is_idle
        computed = submit(executor, queue, Flow(), "a")
        queued = submit(executor, queue, Flow(), "b")
        assert not executor.is_idle
        gate.open.release(2)
        await asyncio.gather(computed, queued)
        executor.set_decoding_cores(1)
        assert not executor.is_idle
        executor.set_decoding_cores(0)
        assert executor.is_idle


class Threads(Factorised):
    """A model that records the number of threads on which its batches are computed."""

    seen: set[int]

    def encode(self, units: Tensor) -> Tensor:
        self.seen.add(torch.get_num_threads())
        return super().encode(units)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
def test_batches_are_measured_on_one_thread() -> None:
    """A number of threads set before has no effect: threads that wait for each other would be counted."""
    Threads.seen = set()
    released: list[object] = []
    spec, (runner,) = runners(released.append, family=Threads)
    torch.set_num_threads(2)
    measured = BatchMeter(runner.on_one_thread(), spec, 8, thread_time).tune()
    assert Threads.seen == {1}
    assert 1 <= measured.tuning.preferred_size <= measured.tuning.max_size <= 8
    assert released == [], "measured units belong to no request"


async def test_remeasuring_a_model_changes_no_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tubelet.service.engine.batch_meter.is_disturbed", lambda *_: True)
    monkeypatch.setattr("tubelet.service.engine.engine.remeasure", partial(remeasure, pauses_s=[0.0]))
    store, metrics = ModelStore(), Metrics()
    async with Engine(EngineConfig(device="cpu", threads=2), metrics) as engine:
        model = await engine.load(store, store.find("camera-motion").spec)
        model.encode.tuning = BatchTuning(0)
        counted = _samples(metrics)
        while not model.encode.tuning.max_size:
            await asyncio.sleep(0.01)
        assert 1 <= model.encode.tuning.max_size <= 32
        assert _samples(metrics) == counted
        engine.unload(model)


async def test_stopping_the_engine_cancels_remeasuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tubelet.service.engine.batch_meter.is_disturbed", lambda *_: True)
    store = ModelStore()
    before = asyncio.all_tasks()
    async with Engine(EngineConfig(device="cpu", threads=2), Metrics()) as engine:
        await engine.load(store, store.find("camera-motion").spec)
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


def _samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Return the value of each series of ``metrics``."""
    return {
        (sample.name, str(sample.labels)): sample.value
        for family in metrics.registry.collect()
        if family.name.startswith("tubelet_")
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
