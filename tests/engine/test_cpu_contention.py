"""Units wait for a fuller batch where decoders have the cores, and only there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.support.engine import Gate, make_queue, submit
from tubelet.service.config.config import Config, DecodeConfig, EngineConfig, ModelsConfig
from tubelet.service.config.cores import usable_cores
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.scheduler import CpuContention, Scheduler
from tubelet.service.engine.stage_queue import EngineCosts, Item, StageQueue
from tubelet.service.fair_queue import Flow
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.pipeline import Event
from tubelet.service.server.app import SAMPLE_CLIP, open_stages
from tubelet.service.types.request import Options

DEVICES = ("cpu:0", "cpu:1")
ENOUGH, ENOUGH_S = 4, 1.0


class Devices:
    """Two of two cores' devices and a GPU, which take units of one model from a schedule."""

    def __init__(self) -> None:
        self.contention = CpuContention(2, DEVICES)
        self.scheduler = Scheduler((*DEVICES, "cuda:0"), self.contention)
        run_on: dict[str, Any] = dict.fromkeys((*DEVICES, "cuda:0"))
        self._units: StageQueue[Any, Any] = StageQueue("model", "encode", 8, run_on, ENOUGH, ENOUGH_S)
        self._windows: StageQueue[Any, Any] = StageQueue("model", "classify", 8, run_on)
        for queue in (self._units, self._windows):
            self.scheduler.add(queue)
        self._flows = {queue: Flow[Any]() for queue in (self._units, self._windows)}

    def put(self, units: int, now: float = 0.0, *, windows: bool = False) -> None:
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        for _ in range(units):
            queue = self._windows if windows else self._units
            self.scheduler.submit(queue, self._flows[queue], Item(None, EngineCosts(), result, now))

    def take(self, device: str, now: float = 0.0) -> int | float | None:
        """How many items it gets; or, if none, after how many seconds it is to ask again."""
        batch = self.scheduler.next_batch(device, now)
        return self.scheduler.retry_in_s(device, now) if batch is None else len(batch.items)


async def test_while_a_core_is_free_it_takes_what_there_is() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 1
    devices.put(1)
    assert devices.take("cpu:0") == 1


async def test_while_decoders_have_all_cores_units_wait_until_there_are_enough() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 2
    devices.put(ENOUGH - 1, now=10.0)
    assert devices.take("cpu:0", now=10.5) == pytest.approx(ENOUGH_S - 0.5)
    devices.put(1, now=10.5)
    assert devices.take("cpu:0", now=10.5) == ENOUGH


async def test_another_batch_has_a_core_too() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 1
    devices.put(1)
    assert devices.take("cpu:0") == 1
    devices.put(1, now=1.0)
    assert devices.take("cpu:1", now=1.0) == ENOUGH_S
    assert devices.take("cpu:0", now=1.0) == 1  # its own core is free again


async def test_they_wait_for_no_longer_than_enough_of_them_take() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 2
    devices.put(1, now=10.0)
    devices.put(1, now=10.9)
    assert devices.take("cpu:0", now=10.0 + ENOUGH_S) == 2
    devices.put(1, now=20.0)
    assert devices.take("cpu:0", now=20.0) == ENOUGH_S


async def test_what_a_batch_left_waits_anew() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 2
    devices.put(9, now=10.0)
    assert devices.take("cpu:0", now=10.5) == 8
    assert devices.take("cpu:1", now=10.5) == ENOUGH_S


async def test_windows_and_gpus_wait_for_nothing() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 2
    devices.put(1)
    devices.put(1, windows=True)
    assert devices.take("cpu:0") == 1
    assert devices.take("cuda:0") == 1


async def test_it_asks_for_nothing_again_where_nothing_is_queued() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 2
    assert devices.take("cpu:0") is None


async def test_a_lost_device_gives_its_core_back() -> None:
    devices = Devices()
    devices.contention.decoding_cores = 1
    devices.put(1)
    assert devices.take("cpu:0") == 1
    assert devices.contention.is_saturated_for("cpu:1")
    devices.scheduler.remove_device("cpu:0")
    assert not devices.contention.is_saturated_for("cpu:1")


async def test_a_decoder_that_rests_lets_the_engine_compute() -> None:
    gate = Gate()
    async with Executor(Metrics(), contention=CpuContention(1, ("cpu",))) as executor:
        queue = make_queue("encode", 8, gate.run)
        queue.preferred_batch_size, queue.preferred_batch_s = 8, 3600.0
        executor.add(queue)
        executor.set_decoding_cores(1)
        results = [submit(executor, queue, Flow(), f"unit{number}") for number in range(3)]
        await asyncio.sleep(0.05)
        assert gate.batches == []
        executor.set_decoding_cores(0)
        gate.open.release()
        assert await asyncio.gather(*results) == ["UNIT0", "UNIT1", "UNIT2"]
    assert len(gate.batches) == 1


async def test_a_batch_is_taken_when_it_is_ripe_though_nothing_happens() -> None:
    gate = Gate()
    gate.open.release()
    async with Executor(Metrics(), contention=CpuContention(1, ("cpu",))) as executor:
        queue = make_queue("encode", 8, gate.run)
        queue.preferred_batch_size, queue.preferred_batch_s = 8, 0.01
        executor.add(queue)
        executor.set_decoding_cores(1)
        assert await submit(executor, queue, Flow(), "unit") == "UNIT"


async def test_a_gpu_takes_what_a_crowded_processor_leaves() -> None:
    taken, hurried = list[Sequence[str]](), list[Sequence[str]]()

    def run(payloads: Sequence[str]) -> Sequence[str]:
        taken.append(payloads)
        return payloads

    def crowded_out(payloads: Sequence[str]) -> Sequence[str]:
        hurried.append(payloads)
        return payloads

    async with Executor(Metrics(), (*DEVICES, "cuda:0"), contention=CpuContention(1, DEVICES)) as executor:
        queue: StageQueue[str, str] = StageQueue(
            "model", "encode", 8, {**dict.fromkeys(DEVICES, crowded_out), "cuda:0": run}
        )
        queue.preferred_batch_size, queue.preferred_batch_s = 8, 3600.0
        executor.add(queue)
        executor.set_decoding_cores(1)
        for number in range(20):
            assert await submit(executor, queue, Flow(), f"unit{number}") == f"unit{number}"
    assert (len(taken), hurried) == (20, [])


async def test_decoders_of_a_server_crowd_its_engine() -> None:
    """All threads of a decoder count while it is at work, and none afterwards."""
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

        await stages.pipeline.classify(chunks(), Options(), look)
        seen.append(contention.decoding_cores)
        async with stages.pipeline._decoders.worker():
            assert contention.decoding_cores == 0
    assert set(seen) <= {0, 2}
    assert 2 in seen
