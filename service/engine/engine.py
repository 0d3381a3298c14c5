"""The engine: models on a device, and the work that videos ask of them."""

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models.contract import ModelSpec, VideoModel
from models.graphed_model import GraphedModel
from models.int8 import Int8Linear
from models.memory import keep_freed_memory
from models.openvino_model import OpenVinoModel
from models.packed import PackedLinear, pack
from models.precision import UnsupportedPrecision, check_int8, choose_dtype, precision_name
from models.store import ModelStore
from service.config import EngineConfig
from service.engine.cache import EmbeddingCache
from service.engine.executor import Executor
from service.engine.hosted import Embedding, HostedModel, Logits
from service.engine.lane import Account, Item, Lane
from service.metrics import Metrics
from service.values import UnitFrames

_log = logging.getLogger(__name__)


class Engine:
    """Batches the units and windows of all videos in flight, on the GPU when there is one."""

    def __init__(self, config: EngineConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._executor = Executor(metrics)
        self._cache = _cache(config, metrics)
        self._loop: asyncio.AbstractEventLoop

    async def __aenter__(self) -> "Engine":
        self._loop = asyncio.get_running_loop()
        torch.set_num_threads(self._config.threads or len(os.sched_getaffinity(0)))
        await self._executor.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._executor.__aexit__(*exc)

    async def load(self, store: ModelStore, spec: ModelSpec) -> HostedModel:
        """Load a model and compute one window of black frames, so that first requests are not slow.

        Raises:
            models.folder.BrokenModel: its files are not what its model.toml says.
            models.extras.MissingExtra: it needs a library that is not installed.
            models.precision.UnsupportedPrecision: it cannot run in the precision that is configured.
        """
        device = choose_device(self._config.device)
        dtype = choose_dtype(self._config.precision, device)
        precision = precision_name(self._config.precision, device)
        model = await asyncio.to_thread(self._load, store, spec, device, dtype)
        most = self._config.max_batch_units
        if device.type == "cpu":
            most = min(most, model.cpu_batch_units)
        hosted = HostedModel(
            spec,
            model,
            device=device,
            precision=precision,
            max_batch_units=most,
            max_batch_windows=self._config.max_batch_windows,
            release=self._release,
        )
        self._executor.add(hosted.encode)
        self._executor.add(hosted.classify)
        await self._warm_up(hosted)
        self._metrics.model_info.labels(spec.name, spec.version, spec.family, str(device), precision).set(1)
        return hosted

    def _load(
        self, store: ModelStore, spec: ModelSpec, device: torch.device, dtype: torch.dtype
    ) -> VideoModel:
        """The model arranged for speed on its device."""
        if self._config.precision == "int8":
            check_int8(device, spec.family)
        if device.type == "cpu":
            keep_freed_memory()
        if device.type == "cpu" and self._config.runtime == "openvino":
            if self._config.precision == "int8":
                raise UnsupportedPrecision(
                    "engine.precision is int8, which engine.runtime openvino does not run"
                )
            model = store.load(spec.name, spec.version, device=device).model
            return OpenVinoModel(model, spec.sampling.frames_per_unit, dtype)
        model = store.load(spec.name, spec.version, device=device, dtype=dtype).model
        if device.type == "cpu":
            pack(model, Int8Linear if self._config.precision == "int8" else PackedLinear)
            return model
        if not model.only_device_work:
            _log.info(
                "%s %s runs without CUDA graphs: %s models may not", spec.name, spec.version, spec.family
            )
            return model
        return GraphedModel(model, spec.sampling.frames_per_unit, self._config.max_batch_units)

    def forget(self) -> None:
        """Keep no embedding of what was computed so far."""
        if self._cache is not None:
            self._cache.clear()

    def work(self, model: HostedModel) -> "VideoWork":
        """A place in the queues for one video."""
        return VideoWork(self._executor, model, self._cache)

    async def _warm_up(self, model: HostedModel) -> None:
        sampling, size = model.spec.sampling, model.spec.preprocessing
        pixels = np.zeros((sampling.frames_per_unit, size.height, size.width, 3), np.uint8)
        work = self.work(model)
        units = [
            work.encode(UnitFrames(grid=0, unit=unit, pixels=pixels, release=lambda: None))
            for unit in range(sampling.units_per_window)
        ]
        await work.classify(units)

    def _release(self, units: Sequence[UnitFrames]) -> None:
        self._loop.call_soon_threadsafe(_release_all, units)


class NoSuchDevice(RuntimeError):
    """The configuration names a device that this machine does not have."""


class VideoWork:
    """What one video asks of the engine: its owner in the fair queues, and its account."""

    def __init__(self, executor: Executor, model: HostedModel, cache: EmbeddingCache | None = None) -> None:
        self.account = Account()
        self._executor = executor
        self._model = model
        self._cache = cache
        self._pending: set[asyncio.Future[Any]] = set()

    def encode(self, unit: UnitFrames) -> asyncio.Future[Embedding]:
        """Queue a unit that is not known yet; it is released once its pixels are not needed any more."""
        if self._cache is None:
            return self._submit(self._model.encode, unit)
        embedding: asyncio.Future[Embedding] = self._promise()
        key = self._cache.key(self._model.spec, unit.pixels)
        self._cache.embed(key, unit, embedding, lambda: self._queue(self._model.encode, unit, embedding))
        return embedding

    async def classify(self, units: Sequence[asyncio.Future[Embedding]]) -> Logits:
        """The logits (K,) of the window of these S units, in order."""
        embeddings = [await unit for unit in units]
        return await self._submit(self._model.classify, embeddings)

    def cancel(self) -> None:
        """Drop all that is not in a batch yet."""
        for future in tuple(self._pending):
            future.cancel()

    def _submit(self, lane: Lane[Any, Any], payload: Any) -> asyncio.Future[Any]:
        result = self._promise()
        self._queue(lane, payload, result)
        return result

    def _promise(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _queue(self, lane: Lane[Any, Any], payload: Any, result: asyncio.Future[Any]) -> None:
        self._executor.submit(lane, self, Item(payload, self.account, result))


def _cache(config: EngineConfig, metrics: Metrics) -> EmbeddingCache | None:
    if config.cache_bytes == 0:
        return None
    cache = EmbeddingCache(
        config.cache_bytes, lambda model, outcome: metrics.unit_cache.labels(model, outcome).inc()
    )
    metrics.unit_cache_bytes.set_function(lambda: cache.used_bytes)
    return cache


def choose_device(wanted: str) -> torch.device:
    """``auto`` is the first GPU where there is one, else the CPU.

    Raises:
        NoSuchDevice: this machine does not have it.
    """
    gpus = torch.cuda.device_count()
    if wanted == "auto":
        return torch.device("cuda:0" if gpus else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise NoSuchDevice(f"engine.device is {wanted!r}, but torch sees {gpus} GPUs here")
    return device


def _release_all(units: Sequence[UnitFrames]) -> None:
    for unit in units:
        unit.release()
