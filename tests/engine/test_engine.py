"""Tests of the executor: fair and full batches, and the same logits in a batch as alone."""

import asyncio
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.engine import Gate, S, classify_video, make_queue, served_model, submit, video
from tubelet.service.engine.executor import Executor
from tubelet.service.fair_queue import Flow
from tubelet.service.metrics import Metrics


async def test_logits_are_equal_batched_and_alone() -> None:
    metrics = Metrics()
    async with Executor(metrics) as executor:
        model = served_model()
        executor.add(model.encode)
        executor.add(model.classify)
        videos = [video(seed, units) for seed, units in enumerate((4, 7, 11, 5, 9))]
        together = await asyncio.gather(*(classify_video(executor, model, units) for units in videos))
        for units, found in zip(videos, together, strict=True):
            np.testing.assert_allclose(found, await classify_video(executor, model, units), atol=1e-4)
        assert np.ptp(np.concatenate(together), axis=0).min() > 0.01  # the model tells videos apart


async def test_whole_windows_give_the_same_logits_as_shared_units() -> None:
    async with Executor(Metrics()) as executor:
        model = served_model()
        executor.add(model.encode)
        executor.add(model.classify)
        units = video(3, 9)
        shared = await classify_video(executor, model, units)
        for start, logits in enumerate(shared):
            whole = await classify_video(executor, model, units[start : start + S])
            np.testing.assert_allclose(whole[0], logits, atol=1e-4)


async def test_items_queued_while_the_device_is_busy_form_the_next_batch() -> None:
    gate, metrics = Gate(), Metrics()
    async with Executor(metrics) as executor:
        queue = make_queue("encode", 3, gate.run)
        executor.add(queue)
        a, b = Flow[Any](), Flow[Any]()
        first = submit(executor, queue, a, "a0")
        await gate.inside()
        rest = [submit(executor, queue, a, f"a{index}") for index in (1, 2, 3)]
        rest.append(submit(executor, queue, b, "b0"))
        assert metrics.registry.get_sample_value("tubelet_queued_units", {"model": "model"}) == 4
        gate.open.release(3)
        assert await asyncio.gather(first, *rest) == ["A0", "A1", "A2", "A3", "B0"]
    assert gate.batches == [["a0"], ["a1", "b0", "a2"], ["a3"]]


async def test_cancelled_items_take_no_room_in_a_batch() -> None:
    gate = Gate()
    async with Executor(Metrics()) as executor:
        queue = make_queue("encode", 2, gate.run)
        executor.add(queue)
        b, c = Flow[Any](), Flow[Any]()
        first = submit(executor, queue, Flow(), "a0")
        await gate.inside()
        dropped = [submit(executor, queue, b, f"b{index}") for index in range(4)]
        kept = [submit(executor, queue, c, f"c{index}") for index in range(2)]
        for future in dropped:
            future.cancel()
        gate.open.release(2)
        await asyncio.gather(first, *kept)
    assert gate.batches == [["a0"], ["c0", "c1"]]


async def test_a_failed_batch_does_not_fail_the_next_one() -> None:
    gate = Gate()
    gate.open.release(2)
    async with Executor(Metrics()) as executor:
        queue = make_queue("encode", 1, gate.run)
        executor.add(queue)
        with pytest.raises(ValueError, match="a bad batch"):
            await submit(executor, queue, Flow(), "bad")
        assert await submit(executor, queue, Flow(), "good") == "GOOD"


async def test_windows_go_before_units() -> None:
    units, windows = Gate(), Gate()
    async with Executor(Metrics()) as executor:
        encode, classify = make_queue("encode", 1, units.run), make_queue("classify", 1, windows.run)
        executor.add(encode)
        executor.add(classify)
        results = [submit(executor, encode, Flow(), "unit0")]
        await units.inside()
        results += [submit(executor, encode, Flow(), "unit1"), submit(executor, classify, Flow(), "window")]
        windows.open.release()
        units.open.release()
        await units.inside()  # the batch of unit1
        assert windows.batches == [["window"]]
        units.open.release()
        await asyncio.gather(*results)


async def test_units_are_released_once_copied_into_a_batch() -> None:
    released: list[int] = []
    model = served_model(release=lambda units: released.extend(unit.unit for unit in units))
    async with Executor(Metrics()) as executor:
        executor.add(model.encode)
        executor.add(model.classify)
        await classify_video(executor, model, video(0, 6))
    assert sorted(released) == list(range(6))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
async def test_a_gpu_gives_the_same_logits_as_the_cpu() -> None:
    units = video(5, 6)
    found = []
    for model in (served_model(), served_model(lambda units: None, "cuda:0")):
        async with Executor(Metrics(), model.encode.run_on) as executor:
            executor.add(model.encode)
            executor.add(model.classify)
            found.append(await classify_video(executor, model, units))
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
