"""The engine: models on devices, and the work that videos ask of them."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, process_time, thread_time

from tubelet.models.repository.repository import ModelStore
from tubelet.models.runtime.host_memory import keep_freed_memory
from tubelet.models.runtime.precision import choose_dtype, precision_name
from tubelet.models.spec import ModelSpec
from tubelet.models.video_model import VideoModel
from tubelet.service.config.config import EngineConfig
from tubelet.service.config.cores import usable_cores
from tubelet.service.engine.batch_meter import BatchMeter, dummy_units, remeasure
from tubelet.service.engine.batch_tuner import BatchTuning, largest_batch
from tubelet.service.engine.cpu_threads import CpuThreads
from tubelet.service.engine.daemon_threads import run_in_daemon_thread
from tubelet.service.engine.embedding_cache import EmbeddingCache, Outcome, Unit
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.model_loader import choose_devices, expand_cpu_cores, load_model
from tubelet.service.engine.model_runner import ModelRunner
from tubelet.service.engine.scheduler import CpuContention
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.engine.session import VideoSession
from tubelet.service.metrics import Metrics
from tubelet.service.types.request import Priority
from tubelet.service.types.video import UnitFrames

_log = logging.getLogger(__name__)


class Engine:
    """Batches the units and windows of all videos in flight, on every GPU when there is one.

    On a processor each core computes batches of its own, of one copy of the model.

    ``on_loss`` hears of each device that is taken out of service.

    Raises:
        tubelet.service.engine.model_loader.NoSuchDevice: the configuration names a device that is not there.
        UnsupportedPrecision: a device does not multiply the configured precision natively.
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
        self._devices = expand_cpu_cores(config, devices, self._cpu_threads.total)
        on_cores = [str(device) for device in self._devices if device.type == "cpu"]
        if on_cores:
            keep_freed_memory()
        contention = CpuContention(usable_cores(), on_cores)
        self._executor = Executor(metrics, map(str, self._devices), on_device_lost, contention)
        self._cache = _cache(config, metrics)
        self._published: dict[tuple[str, str], ServedModel] = {}  # by name and version, the one loaded last
        self._remeasuring: dict[ServedModel, asyncio.Task[None]] = {}  # whose batch sizes are measured again
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

    @property
    def has_devices(self) -> bool:
        """A device is left in service."""
        return bool(self._executor.devices)

    def set_decoding_cores(self, cores: int) -> None:
        """So many of the processor's cores are theirs from now on."""
        self._executor.set_decoding_cores(cores)

    async def load(self, store: ModelStore, spec: ModelSpec) -> ServedModel:
        """Load a model, measure batch sizes, and compute a window, so that first requests are not slow.

        Sizes that other programs distorted are measured again later, while the engine is idle.

        Raises:
            tubelet.models.repository.model_folder.BrokenModel: its files are not what its model.toml says.
            tubelet.models.errors.MissingExtra: it needs a library that is not installed.
            UnsupportedPrecision: it cannot run in the precision that is configured.
        """
        config, began = self._config, monotonic()
        largest = config.max_batch_units or largest_batch(spec, self._devices[0].type)
        runners = await run_in_daemon_thread(partial(self._load_runners, store, spec, largest))
        loaded = monotonic()
        meter = self._meter(runners[0], spec, largest)
        measured = await run_in_daemon_thread(meter.tune)
        served = ServedModel(
            spec,
            runners,
            precision=precision_name(config.precision, *self._devices),
            max_batch_units=measured.tuning.max_size,
            max_batch_windows=config.max_batch_windows,
        )
        served.encode.resize(measured.tuning)
        self._executor.add(served.encode)
        self._executor.add(served.classify)
        try:
            await self._warm_up(served)
        except BaseException:
            self._unschedule(served)
            raise
        self._publish(served, loaded - began, monotonic() - loaded)
        if measured.is_disturbed and self._can_measure_beside_requests(runners[0]):
            self._remeasure_later(served, meter)
        return served

    def unload(self, model: ServedModel) -> None:
        """No work will be asked of it any more."""
        if (remeasuring := self._remeasuring.get(model)) is not None:
            remeasuring.cancel()
        self._unschedule(model)
        if self._published.get(_name_and_version(model)) is model:  # else another one took its place
            self._unpublish(model)
        if all(name != model.spec.name for name, _ in self._published):
            self._metrics.forget_model(model.spec.name)

    def clear_cache(self) -> None:
        """Keep no embedding of what was computed so far."""
        if self._cache is not None:
            self._cache.clear()

    def session(
        self,
        model: ServedModel,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        metrics: Metrics | None = None,
    ) -> VideoSession:
        """A place in the queues for one video, whose work ``metrics`` count, or the engine's where None."""
        return VideoSession(self._executor, model, self._cache, priority, deadline, metrics)

    def _load_runners(self, store: ModelStore, spec: ModelSpec, most: int) -> list[ModelRunner]:
        config, dtype = self._config, self._dtype
        self._cpu_threads.set(self._cpu_threads.total)  # on this thread, which compiles for so many
        on_cpu: VideoModel | None = None
        runners: list[ModelRunner] = []
        for device in self._devices:
            is_cpu = device.type == "cpu"
            model = on_cpu if is_cpu and on_cpu else load_model(config, store, spec, device, dtype, most)
            on_cpu = model if is_cpu else on_cpu
            runners.append(ModelRunner(spec, model, device, most, self._release, self._cpu_threads))
        return runners

    def _meter(self, runner: ModelRunner, spec: ModelSpec, largest: int) -> BatchMeter:
        if self._can_measure_beside_requests(runner):
            return BatchMeter(runner.on_one_thread(), spec, largest, thread_time)
        # OpenVINO computes on threads of its own, which the processor time of the whole process counts.
        return BatchMeter(runner, spec, largest, process_time if runner.device.type == "cpu" else monotonic)

    def _can_measure_beside_requests(self, runner: ModelRunner) -> bool:
        """Whether the model may compute on one more thread, as torch's do on a CPU."""
        return runner.device.type == "cpu" and self._config.runtime == "torch"

    def _remeasure_later(self, model: ServedModel, meter: BatchMeter) -> None:
        async def run() -> None:
            try:
                await remeasure(meter.tune, lambda: self._executor.is_idle, partial(_resize, model))
            except (RuntimeError, MemoryError) as error:
                _log.warning("%s keeps its batch sizes: %s", model.spec.name, error)

        task = self._remeasuring[model] = asyncio.create_task(run())
        task.add_done_callback(lambda _: self._remeasuring.pop(model))

    async def _warm_up(self, model: ServedModel) -> None:
        session = self.session(model, metrics=Metrics())  # which nobody reads
        try:
            units = [
                session.encode(unit)
                for unit in dummy_units(model.spec, range(model.spec.sampling.units_per_window))
            ]
            await session.classify(units)
        finally:
            session.cancel()  # what one that failed leaves queued

    def _unschedule(self, model: ServedModel) -> None:
        self._executor.remove(model.encode)
        self._executor.remove(model.classify)

    def _publish(self, model: ServedModel, load_s: float, warm_up_s: float) -> None:
        spec = model.spec
        if (before := self._published.get(_name_and_version(model))) is not None:
            self._unpublish(before)
        self._published[_name_and_version(model)] = model
        self._metrics.model_info.labels(*_info(model)).set(1)
        self._metrics.model_load_seconds.labels(spec.name, spec.version).set(load_s)
        self._metrics.model_warm_up_seconds.labels(spec.name, spec.version).set(warm_up_s)
        _log.info(
            "%s %s on %s in %s: loaded in %.1f s, warm after %.1f s more, %d units a batch, %.1f ms each",
            spec.name,
            spec.version,
            ",".join(model.devices),
            model.precision,
            load_s,
            warm_up_s,
            model.encode.max_batch_size,
            model.encode.item_s * 1e3,
        )

    def _unpublish(self, model: ServedModel) -> None:
        del self._published[_name_and_version(model)]
        self._metrics.forget_version(*_info(model))

    def _release(self, units: Sequence[UnitFrames]) -> None:
        self._loop.call_soon_threadsafe(_release_all, units)


def _name_and_version(model: ServedModel) -> tuple[str, str]:
    return model.spec.name, model.spec.version


def _info(model: ServedModel) -> tuple[str, ...]:
    """The labels of the metric that shows it."""
    spec = model.spec
    return spec.name, spec.version, spec.family, ",".join(model.devices), model.precision


def _resize(model: ServedModel, tuning: BatchTuning) -> None:
    spec, before, now = model.spec, model.encode.max_batch_size, tuning.max_size
    if now != before:
        _log.info("%s %s measured again: %d units a batch, not %d", spec.name, spec.version, now, before)
    model.encode.resize(tuning)


def _cache(config: EngineConfig, metrics: Metrics) -> EmbeddingCache | None:
    if config.cache_bytes == 0:
        return None

    def count(unit: Unit, model: str, outcome: Outcome) -> None:
        (unit.costs.metrics or metrics).unit_cache.labels(model, outcome).inc()

    cache = EmbeddingCache(config.cache_bytes, count)
    metrics.unit_cache_bytes.set_function(lambda: cache.used_bytes)
    return cache


def _release_all(units: Sequence[UnitFrames]) -> None:
    for unit in units:
        unit.release()
