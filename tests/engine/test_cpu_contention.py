"""Tests of CPU contention: units wait for a fuller batch while decoders use all cores, and only then."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.support.engine import Gate, make_queue, submit
from tubelet.service.config.config import Config, DecodeConfig, EngineConfig, ModelsConfig
from tubelet.service.config.cores import usable_cores
from tubelet.service.engine.batch_tuner import BatchTuning
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.scheduler import CpuContention, Scheduler
from tubelet.service.engine.stage_queue import EngineCosts, Item, StageQueue
from tubelet.service.fair_queue import Flow
from tubelet.service.metrics import Metrics
from tubelet.service.server.app import SAMPLE_CLIP, open_stages
from tubelet.service.types.request import Options
from tubelet.service.types.result import Event

DEVICES = ("cpu:0", "cpu:1")
PREFERRED_SIZE, PREFERRED_S = 4, 1.0


class Devices:
    """The devices of two cores and a GPU, with a scheduler of one model."""

    def __init__(self) -> None:
        self.contention = CpuContention(2, DEVICES)
        self.scheduler = Scheduler((*DEVICES, "cuda:0"), self.contention)
        run_on: dict[str, Any] = dict.fromkeys((*DEVICES, "cuda:0"))
        self._units: StageQueue[Any, Any] = StageQueue(
            "model", "encode", BatchTuning(8, 0.0, PREFERRED_SIZE, PREFERRED_S), run_on
        )
        self._windows: StageQueue[Any, Any] = StageQueue("model", "classify", BatchTuning(8), run_on)
        for queue in (self._units, self._windows):
            self.scheduler.add(queue)
        self._flows = {queue: Flow[Any]() for queue in (self._units, self._windows)}

    def put(self, units: int, now: float = 0.0, *, windows: bool = False) -> None:
        """Queue a number of ``units``, or of ``windows``, at the time ``now``."""
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        for _ in range(units):
            queue = self._windows if windows else self._units
            self.scheduler.submit(queue, self._flows[queue], Item(None, EngineCosts(), result, now))

    def take(self, device: str, now: float = 0.0) -> int | float | None:
        """Return the size of the batch that ``device`` gets; if none, the seconds until it should retry."""
        batch = self.scheduler.next_batch(device, now)
        return self.scheduler.retry_in_s(device, now) if batch is None else len(batch.items)


async def test_a_free_core_computes_whatever_is_queued() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 1
    devices.put(1)
    assert devices.take("cpu:0") == 1


async def test_units_wait_for_a_preferred_batch_while_all_cores_decode() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 2
    devices.put(PREFERRED_SIZE - 1, now=10.0)
    assert devices.take("cpu:0", now=10.5) == pytest.approx(PREFERRED_S - 0.5)
    devices.put(1, now=10.5)
    assert devices.take("cpu:0", now=10.5) == PREFERRED_SIZE


async def test_a_batch_being_computed_occupies_a_core() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 1
    devices.put(1)
    assert devices.take("cpu:0") == 1
    devices.put(1, now=1.0)
    assert devices.take("cpu:1", now=1.0) == PREFERRED_S
    assert devices.take("cpu:0", now=1.0) == 1  # the core of its last batch is free again


async def test_units_wait_no_longer_than_a_preferred_batch_takes() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 2
    devices.put(1, now=10.0)
    devices.put(1, now=10.9)
    assert devices.take("cpu:0", now=10.0 + PREFERRED_S) == 2
    devices.put(1, now=20.0)
    assert devices.take("cpu:0", now=20.0) == PREFERRED_S


async def test_units_left_after_a_full_batch_wait_anew() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 2
    devices.put(9, now=10.0)
    assert devices.take("cpu:0", now=10.5) == 8
    assert devices.take("cpu:1", now=10.5) == PREFERRED_S


async def test_windows_and_gpus_do_not_wait_for_cores() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 2
    devices.put(1)
    devices.put(1, windows=True)
    assert devices.take("cpu:0") == 1
    assert devices.take("cuda:0") == 1


async def test_a_device_does_not_retry_while_nothing_is_queued() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 2
    assert devices.take("cpu:0") is None


async def test_a_lost_device_frees_its_core() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 1
    devices.put(1)
    assert devices.take("cpu:0") == 1
    assert devices.contention.is_saturated_for("cpu:1")
    devices.scheduler.remove_device("cpu:0")
    assert not devices.contention.is_saturated_for("cpu:1")


async def test_a_batch_starts_when_decoders_free_a_core() -> None:
    gate = Gate()
    async with Executor(Metrics(), contention=CpuContention(1, ("cpu",))) as executor:
        queue = make_queue("encode", 8, gate.run, preferred_s=3600.0)
        executor.add(queue)
        executor.set_decoding_cores(1)
        results = [submit(executor, queue, Flow(), f"unit{number}") for number in range(3)]
        await asyncio.sleep(0.05)
        assert gate.batches == []
        executor.set_decoding_cores(0)
        gate.open.release()
        assert await asyncio.gather(*results) == ["UNIT0", "UNIT1", "UNIT2"]
    assert len(gate.batches) == 1


async def test_what_goes_last_waits_for_half_of_the_cores() -> None:
    async with Executor(Metrics(), contention=CpuContention(4, DEVICES)) as executor:
        executor.set_decoding_cores(2)
        on_core = asyncio.create_task(asyncio.to_thread(executor.wait_until_spare, on_core=True))
        assert await asyncio.to_thread(executor.wait_until_spare, on_core=False)
        assert not on_core.done()
        executor.set_decoding_cores(1)
        assert await on_core
        executor.set_decoding_cores(4)
        stopped = asyncio.create_task(asyncio.to_thread(executor.wait_until_spare, on_core=True))
    assert not await stopped


async def test_a_queue_is_flushed_in_time_without_any_event() -> None:
    gate = Gate()
    gate.open.release()
    async with Executor(Metrics(), contention=CpuContention(1, ("cpu",))) as executor:
        queue = make_queue("encode", 8, gate.run, preferred_s=0.01)
        executor.add(queue)
        executor.set_decoding_cores(1)
        assert await submit(executor, queue, Flow(), "unit") == "UNIT"


async def test_a_gpu_computes_while_the_cpu_is_saturated() -> None:
    on_gpu, on_cpu = list[Sequence[str]](), list[Sequence[str]]()

    def run_on_gpu(payloads: Sequence[str]) -> Sequence[str]:
        on_gpu.append(payloads)
        return payloads

    def run_on_cpu(payloads: Sequence[str]) -> Sequence[str]:
        on_cpu.append(payloads)
        return payloads

    async with Executor(Metrics(), (*DEVICES, "cuda:0"), contention=CpuContention(1, DEVICES)) as executor:
        queue: StageQueue[str, str] = StageQueue(
            "model",
            "encode",
            BatchTuning(8, 0.0, 8, 3600.0),
            {**dict.fromkeys(DEVICES, run_on_cpu), "cuda:0": run_on_gpu},
        )
        executor.add(queue)
        executor.set_decoding_cores(1)
        for number in range(20):
            assert await submit(executor, queue, Flow(), f"unit{number}") == f"unit{number}"
    assert (len(on_gpu), on_cpu) == (20, [])


async def test_decoding_of_a_request_occupies_cores_of_the_engine() -> None:
    """All threads of a decoder count as cores while it decodes, and none afterwards."""
    seen: list[int] = []
    config = Config(
        decode=DecodeConfig(workers=1, threads=2), engine=EngineConfig(device="cpu"), models=ModelsConfig()
    )

    async def chunks() -> AsyncIterator[bytes]:
        yield SAMPLE_CLIP.read_bytes()

    async with open_stages(config, Metrics()) as stages:
        contention = stages.pipeline._engine._executor._scheduler.contention
        assert contention.devices == {f"cpu:{core}" for core in range(usable_cores())}

        async def look(_: Event) -> None:
            seen.append(contention.decoding_cores)

        await stages.pipeline.classify(chunks(), stages.pipeline.request(Options()), look)
        seen.append(contention.decoding_cores)
        async with stages.pipeline._decoders.session():
            assert contention.decoding_cores == 0
    assert set(seen) <= {0, 2}
    assert 2 in seen
