"""The executor: one thread for each device, which computes the next batch as soon as the device is free.

On a CPU each core is a device. It is not free while decoders use it, see ``CpuContention``.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import torch

from tubelet.service.engine.scheduler import Batch, CpuContention, Scheduler
from tubelet.service.engine.stage_queue import BatchFailed, Item, PendingBatch, StageQueue
from tubelet.service.errors import NoDevice
from tubelet.service.fair_queue import Flow
from tubelet.service.metrics import Metrics

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch that its device is computing since ``start``."""

    batch: Batch
    pending: PendingBatch[Any]
    start: float


class Executor:
    """Computes the batches of all queues on ``devices``, and sets the results of items on the event loop.

    Where a queue's function returns a ``PendingBatch``, the thread prepares the next batch while the device
    computes. ``on_device_lost`` is called on the event loop with each device that is taken out of service.
    The devices of ``contention`` share the CPU with decoders.
    """

    def __init__(
        self,
        metrics: Metrics,
        devices: Iterable[str] = ("cpu",),
        on_device_lost: Callable[[str], None] = lambda device: None,
        contention: CpuContention | None = None,
    ) -> None:
        self._metrics = metrics
        self._on_device_lost = on_device_lost
        self._scheduler = Scheduler(devices, contention)
        # Where all devices are alike, any one can take a new item. Otherwise one may have to wait for a core
        # while another need not: all are woken.
        alike = self._scheduler.contention.devices in (frozenset(), self._scheduler.devices)
        self._threads_to_wake = 1 if alike else len(self._scheduler.devices)
        self._condition = threading.Condition(lock := threading.RLock())
        self._spare = threading.Condition(lock)
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop
        self._threads: list[threading.Thread] = []
        self._unwatch_queues: Callable[[], None]

    async def __aenter__(self) -> "Executor":
        self._loop = asyncio.get_running_loop()
        self._unwatch_queues = self._metrics.watch_queues(self.queued)
        for device in sorted(self._scheduler.devices):
            self._metrics.device_up.labels(device).set(1)
            thread = threading.Thread(target=self._run, args=(device,), name=f"engine {device}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unwatch_queues()
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
            self._spare.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    @property
    def devices(self) -> frozenset[str]:
        """The devices in service."""
        return frozenset(self._scheduler.devices)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued, and the CPU neither decodes nor computes."""
        with self._condition:
            return self._scheduler.is_idle

    def wait_until_spare(self, *, on_core: bool) -> bool:
        """Block until nothing waits for a device; return False once the executor stops.

        What runs ``on_core`` also waits until less than half of the cores are in use: cores share memory,
        caches and often arithmetic units, so that it would slow down those in use.
        """
        with self._condition:
            self._spare.wait_for(lambda: self._stopping or self._is_spare(on_core))
            return not self._stopping

    def _is_spare(self, on_core: bool) -> bool:
        """Return whether nothing else needs the device or core. The caller holds the lock."""
        return not self._scheduler.has_queued and (not on_core or self._scheduler.contention.has_half_spare)

    def queued(self) -> dict[tuple[str, str], int]:
        """Return how many items wait for each (stage, model name)."""
        with self._condition:
            return self._scheduler.queued()

    def add(self, queue: StageQueue[Any, Any]) -> None:
        """Serve ``queue`` from now on."""
        with self._condition:
            self._scheduler.add(queue)

    def remove(self, queue: StageQueue[Any, Any]) -> None:
        """Stop serving ``queue``. The caller submits nothing more to it."""
        with self._condition:
            self._scheduler.remove(queue)

    def submit(self, queue: StageQueue[Any, Any], flow: Flow[Any], item: Item[Any, Any]) -> None:
        """Queue ``item`` under ``flow``; it fails with ``NoDevice`` where no device can compute it."""
        with self._condition:
            if not self._scheduler.devices & queue.run_on.keys():
                _fail_item(item, _no_device(queue))
                return
            self._scheduler.submit(queue, flow, item)
            self._condition.notify(self._threads_to_wake)

    def set_decoding_cores(self, cores: int) -> None:
        """Set the number of ``cores`` that decoders use from now on."""
        with self._condition:
            freed = self._scheduler.contention.decoding_cores - cores
            self._scheduler.contention.decoding_cores = cores
            self._condition.notify(max(0, freed))
            self._spare.notify_all()

    def _run(self, device: str) -> None:
        """Compute batches on ``device`` until the executor stops or the device is lost. It blocks."""
        running: _Running | None = None
        while True:
            with self._condition:
                while (
                    (batch := self._next_batch(device)) is None
                    and running is None
                    and self._is_active(device)
                ):
                    self._condition.wait(self._scheduler.retry_in_s(device, monotonic()))
                if batch is None and running is None:
                    return
            started = None if batch is None else self._start(batch, device)
            if running is not None:
                self._finish(running, device)
                if started is not None:  # the device could not begin sooner: until now it was queued
                    started = replace(started, start=monotonic())
            running = started

    def _is_active(self, device: str) -> bool:
        """Return whether ``device`` is in service and the executor is not stopping."""
        return not self._stopping and device in self._scheduler.devices

    def _next_batch(self, device: str) -> Batch | None:
        """Return the next batch for ``device`` if it is active. The caller holds the lock."""
        batch = self._scheduler.next_batch(device, monotonic()) if self._is_active(device) else None
        if not self._scheduler.has_queued:
            self._spare.notify_all()
        return batch

    def _start(self, batch: Batch, device: str) -> _Running | None:
        """Start ``batch`` on ``device``; return None if it has ended already, with results or an error."""
        start = monotonic()
        try:
            results = batch.queue.run_on[device]([item.payload for item in batch.items])
        except Exception as error:  # any error of a device or a model concerns this batch alone
            self._on_failure(batch, device, error)
            return None
        if isinstance(results, PendingBatch):
            return _Running(batch, results, start)
        self._on_success(batch, device, results, start)
        return None

    def _finish(self, running: _Running, device: str) -> None:
        """Wait for a batch that ``device`` computes, and deal with its results or error."""
        try:
            results = running.pending.wait()
        except Exception as error:
            self._on_failure(running.batch, device, error)
        else:
            self._on_success(running.batch, device, results, running.start)

    def _on_success(self, batch: Batch, device: str, results: Sequence[Any], start: float) -> None:
        """Record a batch that ``device`` computed, and give its items their results."""
        seconds = monotonic() - start
        with self._condition:
            before = set(self._scheduler.devices)
            self._scheduler.record_success(batch, device, seconds)
            self._announce_lost_devices(before - self._scheduler.devices)
        self._on_loop(self._record_costs, batch, start, seconds)
        self._on_loop(_resolve, batch, results)

    def _on_failure(self, batch: Batch, device: str, error: BaseException) -> None:
        """Queue a batch that failed on ``device`` for another one, or fail its items."""
        can_retry = True
        if isinstance(error, BatchFailed):
            can_retry = bool(error.retry_payloads)
            for item, payload in zip(batch.items, error.retry_payloads, strict=False):
                item.payload = payload
            error = error.__cause__ or error
        _log.warning("a batch of model %s failed on %s: %r", batch.queue.model, device, error)
        with self._condition:
            if isinstance(error, torch.AcceleratorError):  # every later batch on the device would fail too
                self._scheduler.remove_device(device)
                self._announce_lost_devices({device})
            if can_retry and self._scheduler.requeue_failed(batch, device):
                self._condition.notify_all()
                return
        self._on_loop(_fail, batch, error)

    def _announce_lost_devices(self, lost: set[str]) -> None:
        """Report ``lost`` devices and fail what no other device can compute. The caller holds the lock."""
        for device in lost:
            _log.error("device %s failed and is out of service", device)
            self._on_loop(self._report_lost_device, device)
        if lost:
            for batch in self._scheduler.pop_unrunnable():
                self._on_loop(_fail, batch, _no_device(batch.queue))
            self._condition.notify_all()
            self._spare.notify_all()

    def _report_lost_device(self, device: str) -> None:
        """Report a lost device to the metrics and to ``on_device_lost``."""
        self._metrics.device_up.labels(device).set(0)
        self._on_device_lost(device)

    def _on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        """Call ``function`` on the event loop, soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def _record_costs(self, batch: Batch, start: float, seconds: float) -> None:
        """Add ``batch``, which began at ``start`` and took ``seconds``, to the metrics and to its videos."""
        queue, size = batch.queue, len(batch.items)
        if self._scheduler.has(queue):  # else its model was unloaded: its series are gone
            self._count(batch, start, seconds)
        for item in batch.items:
            item.costs.queue_s = max(item.costs.queue_s, start - item.queued_at)
            item.costs.add(queue.stage, seconds / size)

    def _count(self, batch: Batch, start: float, seconds: float) -> None:
        """Add ``batch`` to the metrics of its first item: a warm-up never shares a batch with requests."""
        queue, first = batch.queue, batch.items[0]
        metrics = first.costs.metrics or self._metrics
        metrics.engine_busy_seconds.inc(seconds)
        metrics.stage_seconds.labels(queue.stage, queue.model).observe(seconds)
        metrics.stage_seconds.labels("queue", queue.model).observe(start - first.queued_at)
        sizes = metrics.batch_units if queue.stage == "encode" else metrics.batch_windows
        sizes.labels(queue.model).observe(len(batch.items))


def _resolve(batch: Batch, results: Sequence[Any]) -> None:
    """Give each item of ``batch`` its result, unless it was cancelled."""
    for item, result in zip(batch.items, results, strict=True):
        if not item.result.done():
            item.result.set_result(result)


def _fail(batch: Batch, error: BaseException) -> None:
    """Give each item of ``batch`` the error, unless it was cancelled."""
    for item in batch.items:
        _fail_item(item, error)


def _fail_item(item: Item[Any, Any], error: BaseException) -> None:
    """Give ``item`` the error, unless it was cancelled."""
    if not item.result.done():
        item.result.set_exception(error)


def _no_device(queue: StageQueue[Any, Any]) -> NoDevice:
    """Make the error of items that no device can compute."""
    return NoDevice(f"every device that can compute model {queue.model} is out of service")
