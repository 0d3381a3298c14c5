"""A request that fails tells its client so, once, and the log of asyncio nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import torch

from tests.support.sample_clip import panning_clip
from tests.support.unseen_errors import no_unseen_errors
from tubelet.service.config.config import load_config
from tubelet.service.metrics import Metrics
from tubelet.service.server.app import open_stages
from tubelet.service.types.request import Options, Sliding
from tubelet.service.types.result import Event


async def sent(video: bytes) -> AsyncIterator[bytes]:
    yield video


def gone(payloads: Sequence[Any]) -> Sequence[Any]:
    raise torch.AcceleratorError("the context is broken")


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])  # a cache, too, looks at the errors of units
async def test_units_and_windows_that_nobody_awaits_leave_no_error(cache_bytes: int) -> None:
    """The client reads slowly; when it goes on, the device has failed, and all units and windows with it."""

    async def read_slowly(event: Event) -> None:
        while stages.decoders.busy_workers:
            await asyncio.sleep(0.01)

    config = load_config(None, engine={"cache_bytes": cache_bytes})
    async with open_stages(config, Metrics()) as stages:
        request = stages.pipeline.request(Options(windowing=Sliding.of_seconds(1, 1)))
        for device in request.model.encode.run_on:
            request.model.encode.run_on[device] = gone
        with no_unseen_errors(), pytest.raises(torch.AcceleratorError):
            await stages.pipeline.classify(sent(panning_clip(8.0)), request, read_slowly)
