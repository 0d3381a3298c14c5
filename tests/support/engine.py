"""Small models, random videos and controllable devices for tests of the engine."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch

from tubelet.models.families.factorised import Factorised, FactorisedDims
from tubelet.models.spec import ModelSpec, Preprocessing, Sampling
from tubelet.service.engine.batch_tuner import BatchTuning
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.model_runner import CpuThreads, ModelRunner
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.engine.session import VideoSession
from tubelet.service.engine.stage_queue import BatchFunction, EngineCosts, Item, StageQueue
from tubelet.service.fair_queue import Flow
from tubelet.service.types.video import UnitFrames

S, T, SIZE = 4, 2, 32


def runners(
    release: Callable[[Sequence[UnitFrames]], None] = lambda units: None,
    *devices: str,
    family: type[Factorised] = Factorised,
) -> tuple[ModelSpec, list[ModelRunner]]:
    """Return a small factorised model on ``devices``, or the CPU, always with the same random weights."""
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
        torch.nn.init.normal_(model.get_parameter("head.weight"))
        found.append(ModelRunner(spec, model.to(device), device, 8, release, CpuThreads(2)))
    return spec, found


def served_model(
    release: Callable[[Sequence[UnitFrames]], None] = lambda units: None,
    *devices: str,
    family: type[Factorised] = Factorised,
) -> ServedModel:
    """Return the model of ``runners``, ready for an executor."""
    spec, found = runners(release, *devices, family=family)
    return ServedModel(
        spec, found, precision="float32", fingerprint="", tuning=BatchTuning(8), max_batch_windows=8
    )


def video(seed: int, units: int) -> list[UnitFrames]:
    """Return a number of ``units`` of random pixels."""
    rng = np.random.default_rng(seed)
    return [
        UnitFrames(0, unit, rng.integers(0, 256, (T, SIZE, SIZE, 3), np.uint8), lambda: None)
        for unit in range(units)
    ]


async def classify_video(executor: Executor, model: ServedModel, units: list[UnitFrames]) -> np.ndarray:
    """Return the logits of all windows of a video, with a stride of one unit."""
    session = VideoSession(executor, model)
    embeddings = [session.encode(unit) for unit in units]
    windows = [session.classify(embeddings[start : start + S]) for start in range(len(units) - S + 1)]
    return np.stack(await asyncio.gather(*windows))


class Gate:
    """A device whose batches each wait until ``open`` is released; it records them."""

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
        """Wait until the device has begun another batch."""
        await asyncio.to_thread(self.entered.acquire)


def make_queue(
    stage: Literal["encode", "classify"],
    most: int,
    *functions: BatchFunction[str, str],
    preferred_s: float = 0.0,
) -> StageQueue[str, str]:
    """Return a queue that one function computes on "cpu", or several on "cpu:0", "cpu:1", ..."""
    tuning = BatchTuning(most, 0.0, most, preferred_s)
    names = ["cpu"] if len(functions) == 1 else [f"cpu:{number}" for number in range(len(functions))]
    return StageQueue("model", stage, tuning, dict(zip(names, functions, strict=True)))


def submit(
    executor: Executor, queue: StageQueue[str, str], flow: Flow[Any], payload: str
) -> asyncio.Future[str]:
    """Queue an item with ``payload``, and return the future of its result."""
    result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    executor.submit(queue, flow, Item(payload, EngineCosts(), result))
    return result
