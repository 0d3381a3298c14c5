"""The engine: loads models on all devices, and opens a session for each video."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, thread_time

import torch

from tubelet.models.repository.repository import ModelStore
from tubelet.models.runtime.host_memory import keep_freed_memory
from tubelet.models.runtime.precision import choose_dtype, precision_name
from tubelet.models.spec import ModelSpec
from tubelet.models.video_model import VideoModel
from tubelet.service.config.config import EngineConfig
from tubelet.service.config.cores import usable_cores
from tubelet.service.engine.batch_meter import BatchMeter, dummy_units, remeasure
from tubelet.service.engine.batch_tuner import BatchTuning, largest_batch
from tubelet.service.engine.daemon_threads import run_in_daemon_thread
from tubelet.service.engine.embedding_cache import EmbeddingCache, Outcome, Unit
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.explain_session import ExplainSession
from tubelet.service.engine.explainer import Explainer
from tubelet.service.engine.model_loader import choose_devices, expand_cpu_cores, load_model
from tubelet.service.engine.model_runner import CpuThreads, ModelRunner
from tubelet.service.engine.scheduler import CpuContention
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.engine.session import VideoSession
from tubelet.service.engine.stage_queue import EngineCosts
from tubelet.service.engine.unpacked_copy import UnpackedCopy
from tubelet.service.metrics import Metrics
from tubelet.service.types.request import Priority
from tubelet.service.types.video import UnitFrames

_log = logging.getLogger(__name__)


class Engine:
    """Computes the units and windows of all videos in flight in batches, on every GPU where there is one.

    On a CPU each core computes batches of its own, with one copy of the model for all cores.
    ``on_device_lost`` is called with each device that is taken out of service.

    Raises:
        tubelet.service.engine.model_loader.NoSuchDevice: the configuration names an absent device.
        UnsupportedPrecision: a device cannot multiply natively in the configured precision.
    """

    def __init__(
        self,
        config: EngineConfig,
        metrics: Metrics,
        on_device_lost: Callable[[str], None] = lambda device: None,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._cpu_threads = CpuThreads(config.threads or usable_cores())
        devices = choose_devices(config.device)
        self._dtype = choose_dtype(config.precision, *devices)
        torch.backends.cudnn.allow_tf32 = False  # convolutions in float32, as fp32 and explanations promise
        self._devices = expand_cpu_cores(devices, self._cpu_threads.total)
        on_cores = [str(device) for device in self._devices if device.type == "cpu"]
        if on_cores:
            keep_freed_memory()
        contention = CpuContention(usable_cores(), on_cores)
        self._executor = Executor(metrics, map(str, self._devices), on_device_lost, contention)
        device = self._devices[0]
        wait_for_turn = partial(self._executor.wait_until_spare, on_core=device.type == "cpu")
        self._explainer = Explainer(wait_for_turn, device)
        self._copies: dict[ServedModel, UnpackedCopy] = {}  # loaded once something is explained
        metrics.queued_explanations.set_function(lambda: self._explainer.queued)
        self._cache = _cache(config, metrics)
        self._published: dict[
            tuple[str, str], ServedModel
        ] = {}  # in the metrics; by name and version, the one loaded last
        self._remeasuring: dict[
            ServedModel, asyncio.Task[None]
        ] = {}  # models whose batch sizes are to be measured again
        self._loop: asyncio.AbstractEventLoop

    async def __aenter__(self) -> "Engine":
        self._loop = asyncio.get_running_loop()
        await self._executor.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in (remeasuring := [*self._remeasuring.values()]):
            task.cancel()
        await asyncio.gather(*remeasuring, return_exceptions=True)
        await self._executor.__aexit__(*exc)
        await self._explainer.stop()

    @property
    def has_devices(self) -> bool:
        """Whether at least one device is in service."""
        return bool(self._executor.devices)

    def set_decoding_cores(self, cores: int) -> None:
        """Set the number of CPU ``cores`` that decoders use from now on."""
        self._executor.set_decoding_cores(cores)

    async def load(self, store: ModelStore, spec: ModelSpec) -> ServedModel:
        """Load the model of ``spec``, choose its batch sizes and compute a window as warm-up.

        Where other programs disturbed the measurement of batch sizes, it is repeated later, while the engine
        is idle.

        Raises:
            tubelet.models.errors.BrokenModel: the model's files contradict its model.toml.
            tubelet.models.errors.MissingExtra: the model needs a library that is not installed.
            UnsupportedPrecision: the model cannot run in the configured precision.
        """
        config, began = self._config, monotonic()
        largest = config.max_batch_units or largest_batch(spec, self._devices[0].type)
        runners = await run_in_daemon_thread(partial(self._load_runners, store, spec, largest))
        loaded = monotonic()
        meter = self._meter(runners[0], spec, largest)
        measured = await run_in_daemon_thread(meter.tune)
        entry = store.find(spec.name, spec.version)
        served = ServedModel(
            spec,
            runners,
            precision=precision_name(config.precision, *self._devices),
            fingerprint=entry.fingerprint,
            tuning=measured.tuning,
            max_batch_windows=config.max_batch_windows,
        )
        self._executor.add(served.encode)
        self._executor.add(served.classify)
        try:
            await self._warm_up(served)
        except BaseException:
            self._unschedule(served)
            raise
        self._publish(served, loaded - began, monotonic() - loaded)
        self._copies[served] = UnpackedCopy(entry, self._devices[0], partial(self._show_copies, spec))
        if measured.is_disturbed and runners[0].device.type == "cpu":
            self._remeasure_later(served, meter)
        return served

    def unload(self, model: ServedModel) -> None:
        """Stop serving ``model``. The caller opens no more sessions with it."""
        if (remeasuring := self._remeasuring.get(model)) is not None:
            remeasuring.cancel()
        self._unschedule(model)
        self._copies.pop(model).release()
        if (
            self._published.get(_name_and_version(model)) is model
        ):  # else a newer one with this name and version took its place
            self._unpublish(model)
        if all(name != model.spec.name for name, _ in self._published):
            self._metrics.forget_model(model.spec.name)

    def unpacked_copy(self, model: ServedModel) -> UnpackedCopy:
        """Return the copy of ``model`` that explanations need, and that its first use loads."""
        return self._copies[model]

    def explain_session(
        self,
        model: ServedModel,
        copy: VideoModel,
        priority: Priority,
        deadline: float | None,
        costs: EngineCosts,
    ) -> ExplainSession:
        """Open a session for one video to explain, by the unpacked ``copy`` of ``model``."""
        return ExplainSession(self._explainer, model, copy, priority, deadline, costs)

    def clear_cache(self) -> None:
        """Drop all cached embeddings."""
        if self._cache is not None:
            self._cache.clear()

    def session(
        self,
        model: ServedModel,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        costs: EngineCosts | None = None,
    ) -> VideoSession:
        """Open a session for one video.

        ``deadline`` is a time of the monotonic clock. ``costs`` are those of the video; None: new ones.
        """
        return VideoSession(self._executor, model, self._cache, priority, deadline, costs)

    def _load_runners(self, store: ModelStore, spec: ModelSpec, largest: int) -> list[ModelRunner]:
        """Load a model on each device, for batches of at most ``largest`` units. The cores share one copy."""
        config, dtype = self._config, self._dtype
        # The weights are packed on this thread, to which torch gives as many as the last measurement had.
        self._cpu_threads.set(self._cpu_threads.total)
        on_cpu: VideoModel | None = None
        runners: list[ModelRunner] = []
        for device in self._devices:
            is_cpu = device.type == "cpu"
            model = on_cpu if is_cpu and on_cpu else load_model(config, store, spec, device, dtype, largest)
            on_cpu = model if is_cpu else on_cpu
            runners.append(ModelRunner(spec, model, device, largest, self._release, self._cpu_threads))
        return runners

    def _meter(self, runner: ModelRunner, spec: ModelSpec, largest: int) -> BatchMeter:
        """Make the meter of batch sizes on ``runner``, with the clock that suits its device."""
        if runner.device.type == "cpu":
            return BatchMeter(runner.on_one_thread(), spec, largest, thread_time)
        return BatchMeter(runner, spec, largest)

    def _remeasure_later(self, model: ServedModel, meter: BatchMeter) -> None:
        """Measure the batch sizes of ``model`` again in the background, while the engine is idle."""

        async def run() -> None:
            """Measure until nothing disturbs it; on an error, the batch sizes stay."""
            try:
                await remeasure(meter.tune, lambda: self._executor.is_idle, partial(_retune, model))
            except (RuntimeError, MemoryError) as error:
                _log.warning(
                    "model %s keeps its batch sizes, since they cannot be measured: %s",
                    model.spec.name,
                    error,
                )

        task = self._remeasuring[model] = asyncio.create_task(run())
        task.add_done_callback(lambda _: self._remeasuring.pop(model))

    async def _warm_up(self, model: ServedModel) -> None:
        """Compute a window of black frames, so that no request pays for what is compiled only once."""
        uncounted = EngineCosts(Metrics())  # a warm-up is no request
        session = self.session(model, costs=uncounted)
        try:
            units = [
                session.encode(unit)
                for unit in dummy_units(model.spec, range(model.spec.sampling.units_per_window))
            ]
            await session.classify(units)
            model.unit_shape = tuple(units[0].result().shape)
        finally:
            session.cancel()  # drops what a failed warm-up left in the queues

    def _unschedule(self, model: ServedModel) -> None:
        """Stop serving the queues of ``model``."""
        self._executor.remove(model.encode)
        self._executor.remove(model.classify)

    def _publish(self, model: ServedModel, load_s: float, warm_up_s: float) -> None:
        """Show a model that was loaded in the metrics and the log."""
        spec = model.spec
        if (before := self._published.get(_name_and_version(model))) is not None:
            self._unpublish(before)
        self._published[_name_and_version(model)] = model
        self._metrics.model_info.labels(*_info(model)).set(1)
        self._metrics.model_load_seconds.labels(spec.name, spec.version).set(load_s)
        self._metrics.model_warm_up_seconds.labels(spec.name, spec.version).set(warm_up_s)
        _log.info(
            "loaded model %s %s on %s in %s: %.1f s to load, %.1f s to warm up, "
            "at most %d units a batch, %.1f ms a unit",
            spec.name,
            spec.version,
            ",".join(model.devices),
            model.precision,
            load_s,
            warm_up_s,
            model.encode.tuning.max_size,
            model.encode.item_s * 1e3,
        )

    def _unpublish(self, model: ServedModel) -> None:
        """Remove the series that show ``model`` from the metrics."""
        del self._published[_name_and_version(model)]
        self._metrics.forget_version(*_info(model))

    def _show_copies(self, spec: ModelSpec) -> None:
        """Show the memory of the unpacked copies of the model of ``spec`` in the metrics.

        There are two while a model is reloaded.
        """
        key = (spec.name, spec.version)
        copies = [copy for model, copy in self._copies.items() if _name_and_version(model) == key]
        size_bytes = sum(copy.size_bytes for copy in copies)
        self._metrics.set_explain_bytes(spec.name, spec.version, size_bytes)

    def _release(self, units: Sequence[UnitFrames]) -> None:
        """Release ``units`` on the event loop; called on the threads of devices."""
        self._loop.call_soon_threadsafe(_release_all, units)


def _name_and_version(model: ServedModel) -> tuple[str, str]:
    """Return the name and version of a model."""
    return model.spec.name, model.spec.version


def _info(model: ServedModel) -> tuple[str, ...]:
    """Return the labels of the metric ``model_info`` for ``model``."""
    spec = model.spec
    return spec.name, spec.version, spec.family, ",".join(model.devices), model.precision


def _retune(model: ServedModel, tuning: BatchTuning) -> None:
    """Use the batch sizes of a later measurement for ``model``, and log a change."""
    spec, before, now = model.spec, model.encode.tuning.max_size, tuning.max_size
    if now != before:
        _log.info(
            "model %s %s: batches now have at most %d units, not %d", spec.name, spec.version, now, before
        )
    model.encode.tuning = tuning


def _cache(config: EngineConfig, metrics: Metrics) -> EmbeddingCache | None:
    """Make the cache of embeddings, which ``metrics`` count; None where the configuration has none."""
    if config.cache_bytes == 0:
        return None

    def count(unit: Unit, model: str, outcome: Outcome) -> None:
        """Count a look-up in the metrics of the unit's session, or else in the engine's."""
        (unit.costs.metrics or metrics).unit_cache.labels(model, outcome).inc()

    cache = EmbeddingCache(config.cache_bytes, count)
    metrics.unit_cache_bytes.set_function(lambda: cache.used_bytes)
    return cache


def _release_all(units: Sequence[UnitFrames]) -> None:
    """Release each of ``units``, whose frames are in a decode worker's shared memory."""
    for unit in units:
        unit.release()
