"""The threads that own devices: each takes what is queued the moment its device is free.

On a processor a device is a core; one that decoders are at work on is not free, see ``crowd``.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import torch

from tubelet.service.engine.scheduler import Batch, Crowd, Schedule
from tubelet.service.engine.stage_queue import Item, Lane, Started, Unfinished
from tubelet.service.errors import NoDevice
from tubelet.service.fair_queue import Claim
from tubelet.service.metrics import Metrics

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch that is on its device."""

    batch: Batch
    computed: Started[Any]
    start: float


class Executor:
    """Runs batches of all lanes, one thread a device; results come back on the event loop.

    While a device computes, its thread takes the next batch and prepares it, where the lane's ``run`` returns
    before the results are there. ``on_loss`` hears of each device that is taken out of service; devices in a
    ``crowd`` share a processor with decoders.
    """

    def __init__(
        self,
        metrics: Metrics,
        devices: Iterable[str] = ("cpu",),
        on_loss: Callable[[str], None] = lambda device: None,
        crowd: Crowd | None = None,
    ) -> None:
        self._metrics = metrics
        self._on_loss = on_loss
        self._schedule = Schedule(devices, crowd)
        # Any one of those that are alike will do for an item; else it is for the one that need not wait.
        alike = self._schedule.crowd.devices in (frozenset(), self._schedule.devices)
        self._woken_by_an_item = 1 if alike else len(self._schedule.devices)
        self._condition = threading.Condition()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop
        self._threads: list[threading.Thread] = []
        self._leave_queues: Callable[[], None]

    async def __aenter__(self) -> "Executor":
        self._loop = asyncio.get_running_loop()
        self._leave_queues = self._metrics.watch_queues(self.queued)
        for device in sorted(self._schedule.devices):
            self._metrics.device_up.labels(device).set(1)
            thread = threading.Thread(target=self._run, args=(device,), name=f"engine {device}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave_queues()
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    @property
    def devices(self) -> frozenset[str]:
        """Those in service."""
        return frozenset(self._schedule.devices)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued, decoded or computed on the processor."""
        with self._condition:
            return self._schedule.is_idle

    def queued(self) -> dict[tuple[str, str], int]:
        """How much waits, by stage and model."""
        with self._condition:
            return self._schedule.queued()

    def add(self, lane: Lane[Any, Any]) -> None:
        with self._condition:
            self._schedule.add(lane)

    def remove(self, lane: Lane[Any, Any]) -> None:
        with self._condition:
            self._schedule.remove(lane)

    def submit(self, lane: Lane[Any, Any], claim: Claim[Any], item: Item[Any, Any]) -> None:
        with self._condition:
            if not self._schedule.devices & lane.runs.keys():
                _refuse_one(item, _no_device(lane))
                return
            self._schedule.submit(lane, claim, item)
            self._condition.notify(self._woken_by_an_item)

    def decoders_at_work(self, cores: int) -> None:
        """So many cores are theirs from now on."""
        with self._condition:
            freed = self._schedule.crowd.decoding - cores
            self._schedule.crowd.decoding = cores
            self._condition.notify(max(0, freed))

    def _run(self, device: str) -> None:
        running: _Running | None = None
        while True:
            with self._condition:
                while (batch := self._take(device)) is None and running is None and self._is_serving(device):
                    self._condition.wait(self._schedule.wait_s(device, monotonic()))
                if batch is None and running is None:
                    return
            started = None if batch is None else self._start(batch, device)
            if running is not None:
                self._finish(running, device)
            running = started

    def _is_serving(self, device: str) -> bool:
        return not self._stopping and device in self._schedule.devices

    def _take(self, device: str) -> Batch | None:
        return self._schedule.take(device, monotonic()) if self._is_serving(device) else None

    def _start(self, batch: Batch, device: str) -> _Running | None:
        """Begin a batch; None if it is through already."""
        start = monotonic()
        try:
            results = batch.lane.runs[device]([item.payload for item in batch.items])
        except Exception as error:  # whatever a device or a model throws belongs to this batch alone
            self._failed(batch, device, error)
            return None
        if isinstance(results, Started):
            return _Running(batch, results, start)
        self._succeeded(batch, device, results, start)
        return None

    def _finish(self, running: _Running, device: str) -> None:
        try:
            results = running.computed.wait()
        except Exception as error:
            self._failed(running.batch, device, error)
        else:
            self._succeeded(running.batch, device, results, running.start)

    def _succeeded(self, batch: Batch, device: str, results: Sequence[Any], start: float) -> None:
        seconds = monotonic() - start
        with self._condition:
            before = set(self._schedule.devices)
            self._schedule.succeeded(batch, device, seconds)
            self._mourn(before - self._schedule.devices)
        self._call(self._account, batch, start, seconds)
        self._call(_answer, batch, results)

    def _failed(self, batch: Batch, device: str, error: BaseException) -> None:
        is_whole = True
        if isinstance(error, Unfinished):
            is_whole = bool(error.payloads)
            for item, payload in zip(batch.items, error.payloads, strict=False):
                item.payload = payload
            error = error.__cause__ or error
        _log.warning("a batch of %s failed on %s: %r", batch.lane.model, device, error)
        with self._condition:
            if isinstance(error, torch.AcceleratorError):  # the device's context is broken for good
                self._schedule.lose(device)
                self._mourn({device})
            if is_whole and self._schedule.failed(batch, device):
                self._condition.notify_all()
                return
        self._call(_refuse, batch, error)

    def _mourn(self, lost: set[str]) -> None:
        """Let the others know, and whoever waits for what none of them can compute. Holds the lock."""
        for device in lost:
            _log.error("%s is out of service", device)
            self._call(self._lost, device)
        if lost:
            for batch in self._schedule.stranded():
                self._call(_refuse, batch, _no_device(batch.lane))
            self._condition.notify_all()

    def _lost(self, device: str) -> None:
        self._metrics.device_up.labels(device).set(0)
        self._on_loss(device)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def _account(self, batch: Batch, start: float, seconds: float) -> None:
        lane, size = batch.lane, len(batch.items)
        if self._schedule.has(lane):  # else its model is unloaded, and so are its series
            self._count(batch, start, seconds)
        for item in batch.items:
            item.account.queue_s = max(item.account.queue_s, start - item.queued_at)
            if lane.stage == "encode":
                item.account.encode_s += seconds / size
            else:
                item.account.classify_s += seconds / size

    def _count(self, batch: Batch, start: float, seconds: float) -> None:
        """Add a batch to the metrics of its first item. A warm-up never shares a batch with requests."""
        lane, first = batch.lane, batch.items[0]
        metrics = first.account.metrics or self._metrics
        metrics.engine_busy_seconds.inc(seconds)
        metrics.stage_seconds.labels(lane.stage, lane.model).observe(seconds)
        metrics.stage_seconds.labels("queue", lane.model).observe(start - first.queued_at)
        sizes = metrics.batch_units if lane.stage == "encode" else metrics.batch_windows
        sizes.labels(lane.model).observe(len(batch.items))


def _answer(batch: Batch, results: Sequence[Any]) -> None:
    for item, result in zip(batch.items, results, strict=True):
        if not item.result.done():
            item.result.set_result(result)


def _refuse(batch: Batch, error: BaseException) -> None:
    for item in batch.items:
        _refuse_one(item, error)


def _refuse_one(item: Item[Any, Any], error: BaseException) -> None:
    if not item.result.done():
        item.result.set_exception(error)


def _no_device(lane: Lane[Any, Any]) -> NoDevice:
    return NoDevice(f"no device is left that computes {lane.model}")
