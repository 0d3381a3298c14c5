"""Measures each stage alone on this machine: the decoding of clips, and the batches of the model.

This is the part of ``tests.bench.load`` and ``tests.bench.simulate`` that measures capacity; it is no
program. All cores do the same work at the same time, since two hyper-threads of one core are slower than one
alone.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from tests.simulation.videos import DeviceCosts
from tests.support.videos import open_file
from tubelet.models.repository.repository import ModelStore
from tubelet.models.spec import ModelSpec
from tubelet.service.config.config import DecodeConfig, EngineConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.model_runner import WindowInput, WindowOutput
from tubelet.service.engine.stage_queue import PendingBatch
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.planner import make_plan
from tubelet.service.types.request import Options
from tubelet.service.types.video import UnitFrames

_WINDOWS = 16
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class ClipCost:
    """The cost of decoding one clip: seconds of a core, and the number of its units."""

    decode_s: float
    units: int


@dataclass(frozen=True, slots=True)
class StageCosts:
    clips: tuple[ClipCost, ...]
    device: DeviceCosts  # wall seconds, of all of the device's threads
    threads: int  # of the device, on the cores; 0: it is a GPU
    max_batch_units: int
    units_per_window: int

    @property
    def decode_s(self) -> float:
        """The mean seconds of a core that decoding a clip takes."""
        return statistics.mean(clip.decode_s for clip in self.clips)

    @property
    def compute_s(self) -> float:
        """The mean seconds of a core, or of a GPU, that computing a clip takes in full batches."""
        units = statistics.mean(clip.units for clip in self.clips)
        unit_s = self.device.unit_s + self.device.encode_batch_s / self.max_batch_units
        window_s = self.device.window_s + self.device.classify_batch_s / _WINDOWS
        return (self.threads or 1) * units * (unit_s + window_s / self.units_per_window)

    def limit(self, cores: int) -> float:
        """Return the videos a second that ``cores`` could decode and compute if they did nothing else."""
        if self.threads:
            return cores / (self.decode_s + self.compute_s)
        return min(cores / self.decode_s, 1 / self.compute_s)


async def measure_stages(store: Path, model: str, clips: Sequence[Path], options: Options) -> StageCosts:
    spec = ModelStore(store).find(model).spec
    decoded = await _crowded(spec, clips, options)
    async with Engine(EngineConfig(cache_bytes=0), Metrics()) as engine:
        served = await engine.load(ModelStore(store), spec)
        most = served.encode.tuning.max_size
        encodes = [_finished(run) for run in served.encode.run_on.values()]
        encode, classify = encodes[0], _finished(next(iter(served.classify.run_on.values())))
        units = [_unit(spec, number) for number in range(max(most, spec.sampling.units_per_window))]
        window = WindowInput(encode(units[: spec.sampling.units_per_window]), WindowOutput.LOGITS)
        slower = _together_s(encodes, units[:most]) / _together_s(encodes[:1], units[:most])
        lines = (*_line(encode, units[0], most), *_line(classify, window, _WINDOWS))
        device = DeviceCosts(*(slower * each_s for each_s in lines))
    threads = torch.get_num_threads() if served.devices[0].startswith("cpu") else 0
    return StageCosts(decoded, device, threads, most, spec.sampling.units_per_window)


async def _crowded(spec: ModelSpec, clips: Sequence[Path], options: Options) -> tuple[ClipCost, ...]:
    """Return the decoding cost of each clip: that alone, times the slowdown while all cores decode."""
    cores = len(os.sched_getaffinity(0))
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        alone = [await _decode(pool, spec, clip, options) for clip in clips]
    async with DecodePool(DecodeConfig(workers=cores)) as pool:
        await asyncio.gather(*(_decode(pool, spec, clips[0], options) for _ in range(cores)))
        before_s = _children_s()
        await asyncio.gather(*(_decode(pool, spec, clip, options) for clip in clips))
        slower = (_children_s() - before_s) / sum(cost.decode_s for cost in alone)
    return tuple(ClipCost(slower * cost.decode_s, cost.units) for cost in alone)


async def _decode(pool: DecodePool, spec: ModelSpec, clip: Path, options: Options) -> ClipCost:
    """Return the decoding cost of ``clip`` in one worker of ``pool``."""
    units = 0
    with open_file(clip) as file:
        async with pool.session(file) as session:
            before_s = _children_s()
            plan = make_plan(await session.probe(file), spec.sampling, options)
            async for unit in session.decode(plan, spec.preprocessing):
                unit.release()
                units += 1
            return ClipCost(_children_s() - before_s, units)


def _children_s() -> float:
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(each.user + each.system for each in times)


def _unit(spec: ModelSpec, number: int) -> UnitFrames:
    size = spec.preprocessing
    shape = (spec.sampling.frames_per_unit, size.height, size.width, 3)
    pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
    return UnitFrames(0, number, pixels, lambda: None)


def _finished(run: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
    def finished(items: Sequence[Any]) -> Any:
        results = run(items)
        return results.wait() if isinstance(results, PendingBatch) else results

    return finished


def _together_s(runs: Sequence[Callable[[Sequence[Any]], Any]], items: Sequence[Any]) -> float:
    """Return the median seconds of a batch while each of ``runs`` computes batches on a thread of its own."""
    with ThreadPoolExecutor(len(runs)) as threads:
        return statistics.median(threads.map(lambda run: _median_s(run, items), runs))


def _line(run: Callable[[Sequence[Any]], Any], item: Any, most: int) -> tuple[float, float]:
    """Return the fixed seconds of a batch and the seconds of each item in it, from batches of two sizes."""
    one_s, full_s = (_median_s(run, [item] * size) for size in (1, most))
    item_s = (full_s - one_s) / (most - 1) if most > 1 else one_s
    return max(0.0, one_s - item_s), item_s


def _median_s(run: Callable[[Sequence[Any]], Any], items: Sequence[Any]) -> float:
    taken = []
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        run(items)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])  # the first one allocates
