"""Models, videos and gates for tests of the engine."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch

from tubelet.models.families.factorised import Factorised, FactorisedDims
from tubelet.models.spec import ModelSpec, Preprocessing, Sampling
from tubelet.service.engine.cpu_threads import Cores
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.model_runner import Replica
from tubelet.service.engine.served_model import HostedModel
from tubelet.service.engine.session import VideoWork
from tubelet.service.engine.stage_queue import Account, Item, Lane, Run
from tubelet.service.fair_queue import Claim
from tubelet.service.types.video import UnitFrames

S, T, SIZE = 4, 2, 32


def replicas(
    release: Callable[[Sequence[UnitFrames]], None] = lambda units: None,
    *devices: str,
    family: type[Factorised] = Factorised,
) -> tuple[ModelSpec, list[Replica]]:
    """A small factorised model, always with the same random weights, on the CPU if nothing else is said."""
    preprocessing = Preprocessing(SIZE, SIZE, "crop", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    dims = FactorisedDims((T, 16, 16), S, 48, 2, 1, 3, 96)
    spec = ModelSpec(
        name="random",
        version="1",
        family="factorised",
        description="",
        licence="",
        labels=("a", "b", "c"),
        sampling=Sampling(T, S, 2.0, 1.0, 1.0, 4.0),
        preprocessing=preprocessing,
    )
    found = []
    for device in map(torch.device, devices or ("cpu",)):
        torch.manual_seed(0)
        model = family(dims, preprocessing, 3).eval()
        torch.nn.init.normal_(model.head.weight)
        found.append(Replica(spec, model.to(device), device, 8, release, Cores(2)))
    return spec, found


def hosted(
    release: Callable[[Sequence[UnitFrames]], None] = lambda units: None,
    *devices: str,
    family: type[Factorised] = Factorised,
) -> HostedModel:
    """The model of ``replicas``, ready for an executor."""
    spec, found = replicas(release, *devices, family=family)
    return HostedModel(spec, found, precision="float32", max_batch_units=8, max_batch_windows=8)


def video(seed: int, units: int) -> list[UnitFrames]:
    rng = np.random.default_rng(seed)
    return [
        UnitFrames(0, unit, rng.integers(0, 256, (T, SIZE, SIZE, 3), np.uint8), lambda: None)
        for unit in range(units)
    ]


async def classify_video(executor: Executor, model: HostedModel, units: list[UnitFrames]) -> np.ndarray:
    work = VideoWork(executor, model)
    embeddings = [work.encode(unit) for unit in units]
    windows = [work.classify(embeddings[start : start + S]) for start in range(len(units) - S + 1)]
    return np.stack(await asyncio.gather(*windows))


class Gate:
    """A lane's ``run`` that waits to be let through, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Semaphore(0)

    def run(self, payloads: Sequence[str]) -> Sequence[str]:
        self.batches.append(list(payloads))
        self.entered.release()
        self.open.acquire()
        if "bad" in payloads:
            raise ValueError("a bad batch")
        return [payload.upper() for payload in payloads]

    async def inside(self) -> None:
        await asyncio.to_thread(self.entered.acquire)


def lane_of(stage: Literal["encode", "classify"], most: int, *runs: Run[str, str]) -> Lane[str, str]:
    """On the device "cpu", or on as many as there are functions: "cpu:0", "cpu:1", ..."""
    names = ["cpu"] if len(runs) == 1 else [f"cpu:{number}" for number in range(len(runs))]
    return Lane("model", stage, most, dict(zip(names, runs, strict=True)))


def submit(executor: Executor, lane: Lane[str, str], owner: Claim[Any], payload: str) -> asyncio.Future[str]:
    result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    executor.submit(lane, owner, Item(payload, Account(), result))
    return result
