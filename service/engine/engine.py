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
from tubelet.service.engine.batch_meter import BatchMeter, black_units, settle
from tubelet.service.engine.batch_tuner import BatchTuning, largest_batch
from tubelet.service.engine.cpu_threads import Cores
from tubelet.service.engine.daemon_threads import in_own_thread
from tubelet.service.engine.embedding_cache import EmbeddingCache, Outcome, Unit
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.model_loader import choose_devices, executors, load_model
from tubelet.service.engine.model_runner import Replica
from tubelet.service.engine.scheduler import Crowd
from tubelet.service.engine.served_model import HostedModel
from tubelet.service.engine.session import VideoWork
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
        self, config: EngineConfig, metrics: Metrics, on_loss: Callable[[str], None] = lambda device: None
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._cores = Cores(config.threads or usable_cores())
        devices = choose_devices(config.device)
        self._dtype = choose_dtype(config.precision, *devices)
        self._devices = executors(config, devices, self._cores.total)
        on_cores = [str(device) for device in self._devices if device.type == "cpu"]
        if on_cores:
            keep_freed_memory()
        crowd = Crowd(usable_cores(), on_cores)
        self._executor = Executor(metrics, map(str, self._devices), on_loss, crowd)
        self._cache = _cache(config, metrics)
        self._shown: dict[tuple[str, str], HostedModel] = {}  # by name and version, the one loaded last
        self._settling: dict[HostedModel, asyncio.Task[None]] = {}  # whose batch sizes are measured again
        self._loop: asyncio.AbstractEventLoop

    async def __aenter__(self) -> "Engine":
        self._loop = asyncio.get_running_loop()
        await self._executor.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in (settling := [*self._settling.values()]):
            task.cancel()
        await asyncio.gather(*settling, return_exceptions=True)
        await self._executor.__aexit__(*exc)

    @property
    def is_fit(self) -> bool:
        """A device is left in service."""
        return bool(self._executor.devices)

    def decoders_at_work(self, cores: int) -> None:
        """So many of the processor's cores are theirs from now on."""
        self._executor.decoders_at_work(cores)

    async def load(self, store: ModelStore, spec: ModelSpec) -> HostedModel:
        """Load a model, measure batch sizes, and compute a window, so that first requests are not slow.

        Sizes that other programs distorted are measured again later, while the engine is idle.

        Raises:
            tubelet.models.repository.model_folder.BrokenModel: its files are not what its model.toml says.
            tubelet.models.errors.MissingExtra: it needs a library that is not installed.
            UnsupportedPrecision: it cannot run in the precision that is configured.
        """
        config, began = self._config, monotonic()
        largest = config.max_batch_units or largest_batch(spec, self._devices[0].type)
        replicas = await in_own_thread(partial(self._replicas, store, spec, largest))
        loaded = monotonic()
        meter = self._meter(replicas[0], spec, largest)
        measured = await in_own_thread(meter.tune)
        hosted = HostedModel(
            spec,
            replicas,
            precision=precision_name(config.precision, *self._devices),
            max_batch_units=measured.tuning.max_size,
            max_batch_windows=config.max_batch_windows,
        )
        hosted.encode.resize(measured.tuning)
        self._executor.add(hosted.encode)
        self._executor.add(hosted.classify)
        try:
            await self._warm_up(hosted)
        except BaseException:
            self._take_out(hosted)
            raise
        self._show(hosted, loaded - began, monotonic() - loaded)
        if measured.is_disturbed and self._can_measure_beside_requests(replicas[0]):
            self._settle_later(hosted, meter)
        return hosted

    def unload(self, model: HostedModel) -> None:
        """No work will be asked of it any more."""
        if (settling := self._settling.get(model)) is not None:
            settling.cancel()
        self._take_out(model)
        if self._shown.get(_name_and_version(model)) is model:  # else another one took its place
            self._hide(model)
        if all(name != model.spec.name for name, _ in self._shown):
            self._metrics.forget_model(model.spec.name)

    def forget(self) -> None:
        """Keep no embedding of what was computed so far."""
        if self._cache is not None:
            self._cache.clear()

    def work(
        self,
        model: HostedModel,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        metrics: Metrics | None = None,
    ) -> VideoWork:
        """A place in the queues for one video, whose work ``metrics`` count, or the engine's where None."""
        return VideoWork(self._executor, model, self._cache, priority, deadline, metrics)

    def _replicas(self, store: ModelStore, spec: ModelSpec, most: int) -> list[Replica]:
        config, dtype = self._config, self._dtype
        self._cores.use(self._cores.total)  # on this thread, which compiles for so many
        on_cpu: VideoModel | None = None
        replicas: list[Replica] = []
        for device in self._devices:
            is_cpu = device.type == "cpu"
            model = on_cpu if is_cpu and on_cpu else load_model(config, store, spec, device, dtype, most)
            on_cpu = model if is_cpu else on_cpu
            replicas.append(Replica(spec, model, device, most, self._release, self._cores))
        return replicas

    def _meter(self, replica: Replica, spec: ModelSpec, largest: int) -> BatchMeter:
        if self._can_measure_beside_requests(replica):
            return BatchMeter(replica.on_one_thread(), spec, largest, thread_time)
        # OpenVINO computes on threads of its own, which the processor time of the whole process counts.
        return BatchMeter(replica, spec, largest, process_time if replica.device.type == "cpu" else monotonic)

    def _can_measure_beside_requests(self, replica: Replica) -> bool:
        """Whether the model may compute on one more thread, as torch's do on a CPU."""
        return replica.device.type == "cpu" and self._config.runtime == "torch"

    def _settle_later(self, model: HostedModel, meter: BatchMeter) -> None:
        async def run() -> None:
            try:
                await settle(meter.tune, lambda: self._executor.is_idle, partial(_resize, model))
            except (RuntimeError, MemoryError) as error:
                _log.warning("%s keeps its batch sizes: %s", model.spec.name, error)

        task = self._settling[model] = asyncio.create_task(run())
        task.add_done_callback(lambda _: self._settling.pop(model))

    async def _warm_up(self, model: HostedModel) -> None:
        work = self.work(model, metrics=Metrics())  # which nobody reads
        try:
            units = [
                work.encode(unit)
                for unit in black_units(model.spec, range(model.spec.sampling.units_per_window))
            ]
            await work.classify(units)
        finally:
            work.cancel()  # what one that failed leaves queued

    def _take_out(self, model: HostedModel) -> None:
        self._executor.remove(model.encode)
        self._executor.remove(model.classify)

    def _show(self, model: HostedModel, load_s: float, warm_up_s: float) -> None:
        spec = model.spec
        if (before := self._shown.get(_name_and_version(model))) is not None:
            self._hide(before)
        self._shown[_name_and_version(model)] = model
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
            model.encode.max_batch,
            model.encode.item_s * 1e3,
        )

    def _hide(self, model: HostedModel) -> None:
        del self._shown[_name_and_version(model)]
        self._metrics.forget_version(*_info(model))

    def _release(self, units: Sequence[UnitFrames]) -> None:
        self._loop.call_soon_threadsafe(_release_all, units)


def _name_and_version(model: HostedModel) -> tuple[str, str]:
    return model.spec.name, model.spec.version


def _info(model: HostedModel) -> tuple[str, ...]:
    """The labels of the metric that shows it."""
    spec = model.spec
    return spec.name, spec.version, spec.family, ",".join(model.devices), model.precision


def _resize(model: HostedModel, tuning: BatchTuning) -> None:
    spec, before, now = model.spec, model.encode.max_batch, tuning.max_size
    if now != before:
        _log.info("%s %s measured again: %d units a batch, not %d", spec.name, spec.version, now, before)
    model.encode.resize(tuning)


def _cache(config: EngineConfig, metrics: Metrics) -> EmbeddingCache | None:
    if config.cache_bytes == 0:
        return None

    def count(unit: Unit, model: str, outcome: Outcome) -> None:
        (unit.account.metrics or metrics).unit_cache.labels(model, outcome).inc()

    cache = EmbeddingCache(config.cache_bytes, count)
    metrics.unit_cache_bytes.set_function(lambda: cache.used_bytes)
    return cache


def _release_all(units: Sequence[UnitFrames]) -> None:
    for unit in units:
        unit.release()
