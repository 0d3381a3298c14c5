"""Logits of a video do not depend on other videos, order, cache, batch sizes or devices."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.models import CASES, CLASSES, PREPROCESSING, SIZE, build
from tubelet.models.spec import ModelSpec, Sampling
from tubelet.models.video_model import VideoModel
from tubelet.service.engine.batch_tuner import BatchTuning
from tubelet.service.engine.embedding_cache import EmbeddingCache
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.model_runner import CpuThreads, Logits, ModelRunner
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.engine.session import VideoSession
from tubelet.service.metrics import Metrics
from tubelet.service.types.request import Priority
from tubelet.service.types.video import UnitFrames

MAX_UNITS = 12


@dataclass(frozen=True, slots=True)
class Company:
    """``videos`` are pairs (seed of the pixels, windows); equal seeds share units."""

    videos: tuple[tuple[int, int], ...]
    order: int  # seed of when whose units come
    devices: int
    max_batch: int
    cache_bytes: int | None
    priorities: tuple[Priority, ...]


companies = st.builds(
    Company,
    videos=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=4).map(tuple),
    order=st.integers(0, 1000),
    devices=st.integers(1, 3),
    max_batch=st.integers(1, 8),
    cache_bytes=st.sampled_from([None, 1500, 1 << 20]),
    priorities=st.tuples(*[st.sampled_from(Priority)] * 4),
)

built = cache(build)


@cache
def pixels(case: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (MAX_UNITS * CASES[case][1], CASES[case][0], SIZE, SIZE, 3), np.uint8)


@cache
def alone(case: str, seed: int, windows: int) -> np.ndarray:
    """Compute the logits with the model itself, one unit at a time, without an engine."""
    model, s = built(case), CASES[case][1]
    with torch.inference_mode():
        units = torch.cat(
            [model.encode(torch.from_numpy(unit[None])) for unit in pixels(case, seed)[: windows * s]]
        )
        return torch.cat([model.classify(row[None]) for row in units.unflatten(0, (windows, s))]).numpy()


def served_model(case: str, company: Company, model: VideoModel) -> ServedModel:
    t, s, _ = CASES[case]
    spec = ModelSpec(
        name="random",
        version="1",
        family="vit",
        description="",
        licence="",
        labels=tuple("abcde"[:CLASSES]),
        sampling=Sampling(t, s, 2.0, 2.0, 1.0, 4.0),
        preprocessing=PREPROCESSING,
    )
    devices = [torch.device(f"cpu:{number}") for number in range(company.devices)]
    cores = CpuThreads(company.devices)
    runners = [
        ModelRunner(spec, model, device, company.max_batch, lambda units: None, cores) for device in devices
    ]
    return ServedModel(
        spec,
        runners,
        precision="fp32",
        fingerprint="",
        tuning=BatchTuning(company.max_batch),
        max_batch_windows=company.max_batch,
    )


async def together(case: str, company: Company) -> Sequence[Sequence[Logits]]:
    chance, s = random.Random(company.order), CASES[case][1]
    model = served_model(case, company, built(case))
    kept = None if company.cache_bytes is None else EmbeddingCache(company.cache_bytes, lambda *_: None)

    async def classify(seed: int, windows: int, priority: Priority) -> Sequence[Logits]:
        session, found = VideoSession(executor, model, kept, priority), []
        for start in range(0, windows * s, s):
            units = []
            for unit in range(start, start + s):
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                units.append(session.encode(UnitFrames(0, unit, pixels(case, seed)[unit], lambda: None)))
            found.append(asyncio.ensure_future(session.classify(units)))
        return await asyncio.gather(*found)

    async with Executor(Metrics(), model.encode.run_on) as executor:
        executor.add(model.encode)
        executor.add(model.classify)
        asked = zip(company.videos, company.priorities, strict=False)
        return await asyncio.gather(*(classify(*video, priority) for video, priority in asked))


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=12)
@given(company=companies)
def test_answers_do_not_depend_on_other_videos(case: str, company: Company) -> None:
    found = asyncio.run(together(case, company))
    # Random weights hardly tell videos apart: an answer is right when it is much nearer than another's.
    apart = np.abs(alone(case, 0, 1) - alone(case, 1, 1)).max()
    for (seed, windows), logits in zip(company.videos, found, strict=True):
        np.testing.assert_allclose(
            np.stack(logits), alone(case, seed, windows), rtol=0, atol=min(1e-4, apart / 20)
        )
