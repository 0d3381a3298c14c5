"""Tests of several devices: they share a queue, and failing ones are taken out of service."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.engine import Gate, S, classify_video, make_queue, served_model, submit, video
from tubelet.models.families.factorised import Factorised
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.stage_queue import PendingBatch, StageQueue
from tubelet.service.errors import NoDevice
from tubelet.service.fair_queue import Flow
from tubelet.service.metrics import Metrics
from tubelet.service.types.video import UnitFrames

DEVICES = ("cpu:0", "cpu:1")


def fine(payloads: Sequence[str]) -> Sequence[str]:
    return [payload.upper() for payload in payloads]


def broken(payloads: Sequence[str]) -> Sequence[str]:
    raise ValueError("this device cannot compute")


def gone(payloads: Sequence[str]) -> Sequence[str]:
    raise torch.AcceleratorError("the context is broken")


def up(metrics: Metrics, device: str) -> float | None:
    return metrics.registry.get_sample_value("tubelet_device_up", {"device": device})


async def test_two_devices_share_one_queue() -> None:
    gates = Gate(), Gate()
    async with Executor(Metrics(), DEVICES) as executor:
        queue = make_queue("encode", 1, *(gate.run for gate in gates))
        executor.add(queue)
        results = [submit(executor, queue, Flow(), f"unit{number}") for number in range(2)]
        for gate in gates:  # neither device waits for the other
            await gate.inside()
            gate.open.release()
        assert await asyncio.gather(*results) == ["UNIT0", "UNIT1"]
    assert sorted(gate.batches[0][0] for gate in gates) == ["unit0", "unit1"]


async def test_two_devices_give_the_same_logits_as_one() -> None:
    """The units of a window may be computed on both devices."""
    model, alone = served_model(lambda units: None, *DEVICES), served_model()
    videos = [video(seed, S + seed % 5) for seed in range(12)]
    async with Executor(Metrics(), DEVICES) as executor, Executor(Metrics()) as one:
        for queue in (model.encode, model.classify):
            executor.add(queue)
        for queue in (alone.encode, alone.classify):
            one.add(queue)
        found = await asyncio.gather(*(classify_video(executor, model, units) for units in videos))
        for units, logits in zip(videos, found, strict=True):
            np.testing.assert_allclose(logits, await classify_video(one, alone, units), atol=1e-4)


class OutOfMemory(Factorised):
    """A model that fails with each video once, after the units of a batch were released."""

    has_failed = True

    def encode(self, units: torch.Tensor) -> torch.Tensor:
        if not OutOfMemory.has_failed:
            OutOfMemory.has_failed = True
            raise RuntimeError("not enough memory")
        return super().encode(units)


async def test_a_retry_computes_the_original_pixels() -> None:
    """Meanwhile, a decoder may have overwritten the memory of the units."""

    def refill(units: Sequence[UnitFrames]) -> None:
        for unit in units:
            unit.pixels[...] = 0

    failing, alone = served_model(refill, *DEVICES, family=OutOfMemory), served_model()
    async with Executor(Metrics(), DEVICES) as executor, Executor(Metrics()) as one:
        for queue in (failing.encode, failing.classify):
            executor.add(queue)
        for queue in (alone.encode, alone.classify):
            one.add(queue)
        for seed in range(5):
            OutOfMemory.has_failed = False
            found = await classify_video(executor, failing, video(seed, S))
            np.testing.assert_allclose(found, await classify_video(one, alone, video(seed, S)), atol=1e-4)
            assert OutOfMemory.has_failed


async def test_a_failed_batch_is_retried_on_another_device() -> None:
    metrics, lost = Metrics(), list[str]()
    async with Executor(metrics, DEVICES, lost.append) as executor:
        queue = make_queue("encode", 1, broken, fine)
        executor.add(queue)
        for number in range(40):
            assert await submit(executor, queue, Flow(), f"unit{number}") == f"UNIT{number}"
            if lost:
                break
        assert lost == ["cpu:0"]
        assert (up(metrics, "cpu:0"), up(metrics, "cpu:1")) == (0, 1)
        assert executor.devices == {"cpu:1"}


async def test_a_device_with_a_broken_context_is_lost_at_once() -> None:
    lost, tries, tried = list[str](), list[Sequence[str]](), threading.Event()

    def gone_at_once(payloads: Sequence[str]) -> Sequence[str]:
        tries.append(payloads)
        tried.set()
        return gone(payloads)

    def fine_later(payloads: Sequence[str]) -> Sequence[str]:
        tried.wait()
        return fine(payloads)

    async with Executor(Metrics(), DEVICES, lost.append) as executor:
        queue = make_queue("encode", 1, gone_at_once, fine_later)
        executor.add(queue)
        results = [submit(executor, queue, Flow(), f"unit{number}") for number in range(50)]
        assert await asyncio.gather(*results) == [f"UNIT{number}" for number in range(50)]
        assert (len(tries), lost) == (1, ["cpu:0"])


async def test_a_batch_that_fails_everywhere_takes_no_device_out() -> None:
    """The batch fails on both devices, and both stay in service."""
    lost: list[str] = []

    def picky(payloads: Sequence[str]) -> Sequence[str]:
        if "bad" in payloads:
            raise ValueError("a bad batch")
        return fine(payloads)

    async with Executor(Metrics(), DEVICES, lost.append) as executor:
        queue = make_queue("encode", 1, picky, picky)
        executor.add(queue)
        for _ in range(10):
            with pytest.raises(ValueError, match="a bad batch"):
                await submit(executor, queue, Flow(), "bad")
        assert await submit(executor, queue, Flow(), "good") == "GOOD"
    assert not lost


async def test_items_fail_once_no_device_is_left() -> None:
    gate, lost = threading.Event(), list[str]()

    def last(payloads: Sequence[str]) -> Sequence[str]:
        gate.wait()
        return gone(payloads)

    async with Executor(Metrics(), ("cpu",), lost.append) as executor:
        queue = make_queue("encode", 1, last)
        executor.add(queue)
        computing, waiting = (submit(executor, queue, Flow(), name) for name in ("a", "b"))
        gate.set()
        with pytest.raises(torch.AcceleratorError):
            await computing
        with pytest.raises(NoDevice, match="every device that can compute model model is out of service"):
            await waiting
        with pytest.raises(NoDevice):
            await submit(executor, queue, Flow(), "c")
        assert lost == ["cpu"]


class Pipelined:
    """A device that computes while its thread goes on; each batch ends when ``open`` is released."""

    def __init__(self) -> None:
        self.begun: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Semaphore(0)

    def run(self, payloads: Sequence[str]) -> PendingBatch[str]:
        self.begun.append(list(payloads))
        self.entered.release()
        return PendingBatch(lambda: self._wait(payloads))

    def _wait(self, payloads: Sequence[str]) -> Sequence[str]:
        self.open.acquire()
        if "bad" in payloads:
            raise ValueError("a bad batch")
        return fine(payloads)


async def pipelined() -> tuple[Pipelined, StageQueue[Any, Any]]:
    device = Pipelined()
    return device, make_queue("encode", 1, device.run)


async def test_next_batch_starts_while_another_is_computed() -> None:
    device, queue = await pipelined()
    async with Executor(Metrics()) as executor:
        executor.add(queue)
        results = [submit(executor, queue, Flow(), f"unit{number}") for number in range(3)]
        for _ in range(2):
            await asyncio.to_thread(device.entered.acquire)
        assert device.begun == [["unit0"], ["unit1"]]  # two batches are on the device, and neither has ended
        assert not any(result.done() for result in results)
        device.open.release(3)
        assert await asyncio.gather(*results) == ["UNIT0", "UNIT1", "UNIT2"]


async def test_a_device_is_busy_with_one_batch_at_a_time() -> None:
    def run(payloads: Sequence[str]) -> PendingBatch[str]:
        def wait() -> Sequence[str]:
            time.sleep(0.05)  # the time that the device takes
            return fine(payloads)

        return PendingBatch(wait)

    metrics, queue = Metrics(), make_queue("encode", 1, run)
    async with Executor(metrics) as executor:
        executor.add(queue)
        began = time.monotonic()
        await asyncio.gather(*(submit(executor, queue, Flow(), f"unit{number}") for number in range(5)))
        elapsed = time.monotonic() - began
    busy = metrics.registry.get_sample_value("tubelet_engine_busy_seconds_total")
    assert busy is not None
    assert 5 * 0.05 <= busy <= elapsed


async def test_last_batch_does_not_wait_for_another() -> None:
    device, queue = await pipelined()
    async with Executor(Metrics()) as executor:
        executor.add(queue)
        device.open.release()
        assert await submit(executor, queue, Flow(), "alone") == "ALONE"


async def test_a_pending_batch_that_fails_fails_alone() -> None:
    device, queue = await pipelined()
    device.open.release(3)
    async with Executor(Metrics()) as executor:
        executor.add(queue)
        results = [submit(executor, queue, Flow(), name) for name in ("good", "bad", "fine")]
        assert [str(each) for each in await asyncio.gather(*results, return_exceptions=True)] == [
            "GOOD",
            "a bad batch",
            "FINE",
        ]
