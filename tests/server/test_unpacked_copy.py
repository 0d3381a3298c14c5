"""The unpacked copy of a model, which explanations need: it is loaded once, and goes with its model."""

import asyncio

import pytest

from tests.support.model_serving import Serving, write
from tests.support.stored_models import model
from tubelet.models.errors import BrokenModel

LABELS = {"model": "tiny", "version": "1"}


async def test_two_first_requests_load_one_copy(serving: Serving) -> None:
    read = serving.metrics.registry.get_sample_value
    assert read("tubelet_explain_model_bytes", LABELS) is None
    copy = serving.engine.unpacked_copy(serving.registry.default)
    one, two = await asyncio.gather(copy.load(), copy.load())
    assert one is two
    weights = sum(each.nbytes for each in (*model().parameters(), *model().buffers()))
    assert read("tubelet_explain_model_bytes", LABELS) == copy.size_bytes == weights


async def test_a_request_that_leaves_stops_no_other(serving: Serving) -> None:
    copy = serving.engine.unpacked_copy(serving.registry.default)
    leaving, staying = asyncio.create_task(copy.load()), asyncio.create_task(copy.load())
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying is await copy.load()


async def test_the_copy_is_released_with_its_version(serving: Serving) -> None:
    served = serving.registry.default
    await serving.engine.unpacked_copy(served).load()
    write(serving.store, "2", seed=1)
    await serving.reload("tiny:2")
    # Versions are unloaded in the background.
    while serving.metrics.registry.get_sample_value("tubelet_explain_model_bytes", LABELS) is not None:
        await asyncio.sleep(0)
    with pytest.raises(KeyError):
        serving.engine.unpacked_copy(served)


async def test_a_copy_that_cannot_be_loaded_is_tried_again(serving: Serving) -> None:
    copy = serving.engine.unpacked_copy(serving.registry.default)
    weights = serving.store / "tiny" / "1" / "weights.safetensors"
    moved = weights.rename(weights.with_suffix(".away"))
    with pytest.raises(BrokenModel, match="cannot be read"):
        await copy.load()
    moved.rename(weights)
    assert (await copy.load()).cpu_batch_units > 0
