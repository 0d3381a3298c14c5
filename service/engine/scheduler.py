"""What each device computes next, and which devices are fit to: pure bookkeeping, on nobody's clock.

The executor drives it with threads, ``tests/bench/simulate.py`` with simulated time.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tubelet.service.engine.stage_queue import Item, StageQueue
from tubelet.service.fair_queue import Flow


class CpuContention:
    """The ``cores`` that decoders and ``devices`` share, each of which counts as one while it computes.

    Where all are at work, a batch more would only take its core from the others, and units cost the least in
    batches that are full. Whatever is queued is taken the moment a core is free. Pure bookkeeping: the caller
    holds a lock.
    """

    def __init__(self, cores: int, devices: Iterable[str]) -> None:
        self.devices = frozenset(devices)
        self.decoding_cores = 0  # cores that decoders are at work on
        self._cores = cores
        self._computing: set[str] = set()

    def batch_started(self, device: str) -> None:
        """It computes a batch."""
        if device in self.devices:
            self._computing.add(device)

    def batch_finished(self, device: str) -> None:
        """It computes nothing, whether or not it did."""
        self._computing.discard(device)

    @property
    def is_idle(self) -> bool:
        """Whether neither decoders nor devices are at work."""
        return not self.decoding_cores and not self._computing

    def is_saturated_for(self, device: str) -> bool:
        """Has it no core of its own to compute on?"""
        return device in self.devices and self.decoding_cores + len(self._computing) >= self._cores


_MAX_CONSECUTIVE_FAILURES = 3  # batches in a row that one device fails and another computes


@dataclass(frozen=True, slots=True)
class Batch:
    queue: StageQueue[Any, Any]
    items: Sequence[Item[Any, Any]]
    failed_on: tuple[str, ...] = ()


class Scheduler:
    """The lanes of all models, from which all devices draw.

    Windows go before units: they are cheap, and a finished one is a result that a client waits for. A batch
    that fails is tried once more, on another device that has its model, if there is one. Whoever fails
    ``_STRIKES`` batches in a row that others then compute gets none any more. Where a ``crowd`` is in a
    device's way, units wait until their batch is ripe.
    """

    def __init__(self, devices: Iterable[str], contention: CpuContention | None = None) -> None:
        self.devices = set(devices)  # those in service
        self.contention = contention or CpuContention(0, ())
        self._queues: list[StageQueue[Any, Any]] = []
        self._retries: deque[Batch] = deque()
        self._consecutive_failures: Counter[str] = Counter()
        self._round = 0

    def add(self, queue: StageQueue[Any, Any]) -> None:
        self._queues.append(queue)

    def remove(self, queue: StageQueue[Any, Any]) -> None:
        """Nothing is submitted to it any more."""
        self._queues.remove(queue)

    def has(self, queue: StageQueue[Any, Any]) -> bool:
        return queue in self._queues

    def submit(self, queue: StageQueue[Any, Any], flow: Flow[Any], item: Item[Any, Any]) -> None:
        queue.put(flow, item)

    def queued(self) -> dict[tuple[str, str], int]:
        """How much waits in each stage of each model, of all its versions."""
        lengths: Counter[tuple[str, str]] = Counter()
        for queue in self._queues:
            lengths[queue.stage, queue.model] += len(queue.fair_queue)
        return lengths

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued, decoded or computed on the processor."""
        return (
            self.contention.is_idle
            and not self._retries
            and not any(len(queue.fair_queue) for queue in self._queues)
        )

    def next_batch(self, device: str, now: float) -> Batch | None:
        """The next batch for a device that is free."""
        self.contention.batch_finished(device)
        batch = self._pick_batch(device, now)
        if batch is not None:
            self.contention.batch_started(device)
        return batch

    def retry_in_s(self, device: str, now: float) -> float | None:
        """A device that was given nothing is to ask again after so long; None: once something has changed."""
        if not self.contention.is_saturated_for(device):
            return None
        waiting = [queue.flush_at - now for queue in self._waiting(device)]
        return max(0.0, min(waiting)) if waiting else None

    def _pick_batch(self, device: str, now: float) -> Batch | None:
        for batch in self._retries:
            if device not in batch.failed_on and device in batch.queue.run_on:
                self._retries.remove(batch)
                return batch
        while (queue := self._next_queue(device, now)) is not None:
            if items := queue.pop_batch(now):
                return Batch(queue, items)
        return None

    def record_success(self, batch: Batch, device: str, seconds: float) -> None:
        batch.queue.record_batch(seconds, len(batch.items))
        self._consecutive_failures[device] = 0
        for other in batch.failed_on:
            self._consecutive_failures[other] += 1
            if self._consecutive_failures[other] >= _MAX_CONSECUTIVE_FAILURES:
                self.remove_device(other)

    def requeue_failed(self, batch: Batch, device: str) -> bool:
        """Will another device try it?"""
        others = (self.devices & batch.queue.run_on.keys()) - {device}
        if not others or batch.failed_on:
            return False
        self._retries.append(Batch(batch.queue, batch.items, (device,)))
        return True

    def remove_device(self, device: str) -> None:
        """A device is out of service."""
        self.devices.discard(device)
        self.contention.batch_finished(device)

    def pop_unrunnable(self) -> list[Batch]:
        """Take out what no device that is left can compute."""
        found = [batch for batch in self._retries if self.devices <= {*batch.failed_on}]
        for batch in found:
            self._retries.remove(batch)
        for queue in self._queues:
            while not self.devices & queue.run_on.keys() and (items := queue.pop_batch(0.0)):
                found.append(Batch(queue, items))
        return found

    def _waiting(self, device: str) -> list[StageQueue[Any, Any]]:
        return [queue for queue in self._queues if len(queue.fair_queue) and device in queue.run_on]

    def _next_queue(self, device: str, now: float) -> StageQueue[Any, Any] | None:
        waiting = self._waiting(device)
        if self.contention.is_saturated_for(device):
            waiting = [queue for queue in waiting if queue.should_flush(now)]
        if not waiting:
            return None
        windows = [queue for queue in waiting if queue.stage == "classify"]
        candidates = windows or waiting
        self._round += 1
        return candidates[self._round % len(candidates)]
