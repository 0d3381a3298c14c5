"""The scheduler: chooses the next batch of each device, and takes failing devices out of service.

It has neither threads nor a clock. The executor calls it from threads, ``tests/bench/simulate.py`` in
simulated time.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tubelet.service.engine.stage_queue import Item, StageQueue
from tubelet.service.fair_queue import Flow


class CpuContention:
    """Counts the CPU ``cores`` in use: by decoders, and by ``devices``, which compute on one core each.

    While all cores are busy, one more batch would only slow the others down, and a unit costs least in a full
    batch: so units wait. As soon as a core is free, a batch takes whatever is queued. The caller holds a
    lock.
    """

    def __init__(self, cores: int, devices: Iterable[str]) -> None:
        self.devices = frozenset(devices)
        self.decoding_cores = 0  # the number of cores that decoders use
        self._cores = cores
        self._computing: set[str] = set()

    def batch_started(self, device: str) -> None:
        """Count the core of ``device`` as busy, if it is one of ``devices``."""
        if device in self.devices:
            self._computing.add(device)

    def batch_finished(self, device: str) -> None:
        """Count the core of ``device`` as free. Calling this twice is harmless."""
        self._computing.discard(device)

    @property
    def is_idle(self) -> bool:
        """Whether neither decoders nor devices use a core."""
        return not self.decoding_cores and not self._computing

    @property
    def has_half_spare(self) -> bool:
        """Whether decoders and devices use less than half of the cores."""
        return 2 * (self.decoding_cores + len(self._computing)) < self._cores

    def is_saturated_for(self, device: str) -> bool:
        """Return whether decoders and other batches occupy all cores, so that ``device`` has none."""
        return device in self.devices and self.decoding_cores + len(self._computing) >= self._cores


_MAX_CONSECUTIVE_FAILURES = 3  # batches in a row that failed on one device and succeeded on another


@dataclass(frozen=True, slots=True)
class Batch:
    """Items of one queue that a device computes together, and the devices that have failed to."""

    queue: StageQueue[Any, Any]
    items: Sequence[Item[Any, Any]]
    failed_on: tuple[str, ...] = ()


class Scheduler:
    """Chooses batches for ``devices`` from the queues of all models.

    Windows go before units: they are cheap, and a client waits for their results. A batch that fails is tried
    once more, on another device that has its model. A device that fails ``_MAX_CONSECUTIVE_FAILURES`` batches
    in a row which others then compute is taken out of service. While the cores are saturated, see
    ``contention``, a queue waits until it should be flushed.
    """

    def __init__(self, devices: Iterable[str], contention: CpuContention | None = None) -> None:
        self.devices = set(devices)  # in service
        self.contention = contention or CpuContention(0, ())
        self._queues: list[StageQueue[Any, Any]] = []
        self._retries: deque[Batch] = deque()
        self._consecutive_failures: Counter[str] = Counter()
        self._round = 0

    def add(self, queue: StageQueue[Any, Any]) -> None:
        """Serve ``queue`` from now on."""
        self._queues.append(queue)

    def remove(self, queue: StageQueue[Any, Any]) -> None:
        """Stop serving ``queue``. The caller submits nothing more to it."""
        self._queues.remove(queue)

    def has(self, queue: StageQueue[Any, Any]) -> bool:
        """Return whether ``queue`` is served."""
        return queue in self._queues

    def submit(self, queue: StageQueue[Any, Any], flow: Flow[Any], item: Item[Any, Any]) -> None:
        """Queue ``item`` under ``flow``."""
        queue.put(flow, item)

    def queued(self) -> dict[tuple[str, str], int]:
        """Return how many items wait for each (stage, model name), summed over the versions of a model."""
        lengths: Counter[tuple[str, str]] = Counter()
        for queue in self._queues:
            lengths[queue.stage, queue.model] += len(queue.fair_queue)
        return lengths

    @property
    def has_queued(self) -> bool:
        """Whether anything waits for a device."""
        return bool(self._retries) or any(len(queue.fair_queue) for queue in self._queues)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued, and the CPU neither decodes nor computes."""
        return self.contention.is_idle and not self.has_queued

    def next_batch(self, device: str, now: float) -> Batch | None:
        """Return the next batch for ``device``, which has finished its last one; None: it has to wait."""
        self.contention.batch_finished(device)
        batch = self._pick_batch(device, now)
        if batch is not None:
            self.contention.batch_started(device)
        return batch

    def retry_in_s(self, device: str, now: float) -> float | None:
        """Return in how many seconds ``device``, which got no batch, may get one; None: after a change."""
        if not self.contention.is_saturated_for(device):
            return None
        waiting = [queue.flush_at - now for queue in self._waiting(device)]
        return max(0.0, min(waiting)) if waiting else None

    def _pick_batch(self, device: str, now: float) -> Batch | None:
        """Return a batch to retry, or a new one from the next queue."""
        for batch in self._retries:
            if device not in batch.failed_on and device in batch.queue.run_on:
                self._retries.remove(batch)
                return batch
        while (queue := self._next_queue(device, now)) is not None:
            if items := queue.pop_batch(now):
                return Batch(queue, items)
        return None

    def record_success(self, batch: Batch, device: str, seconds: float) -> None:
        """Record that ``device`` computed ``batch``; its failures on other devices count against these."""
        batch.queue.record_batch(seconds, len(batch.items))
        self._consecutive_failures[device] = 0
        for other in batch.failed_on:
            self._consecutive_failures[other] += 1
            if self._consecutive_failures[other] >= _MAX_CONSECUTIVE_FAILURES:
                self.remove_device(other)

    def requeue_failed(self, batch: Batch, device: str) -> bool:
        """Queue ``batch``, which failed on ``device``, for another device; return False if there is none."""
        others = (self.devices & batch.queue.run_on.keys()) - {device}
        if not others or batch.failed_on:
            return False
        self._retries.append(Batch(batch.queue, batch.items, (device,)))
        return True

    def remove_device(self, device: str) -> None:
        """Take ``device`` out of service."""
        self.devices.discard(device)
        self.contention.batch_finished(device)

    def pop_unrunnable(self) -> list[Batch]:
        """Remove and return all batches that no device in service can compute."""
        found = [batch for batch in self._retries if self.devices <= {*batch.failed_on}]
        for batch in found:
            self._retries.remove(batch)
        for queue in self._queues:
            while not self.devices & queue.run_on.keys() and (items := queue.pop_batch(0.0)):
                found.append(Batch(queue, items))
        return found

    def _waiting(self, device: str) -> list[StageQueue[Any, Any]]:
        """Return the queues with items that ``device`` can compute."""
        return [queue for queue in self._queues if len(queue.fair_queue) and device in queue.run_on]

    def _next_queue(self, device: str, now: float) -> StageQueue[Any, Any] | None:
        """Choose the queue that ``device`` serves next: windows first, then in rotation."""
        waiting = self._waiting(device)
        if self.contention.is_saturated_for(device):
            waiting = [queue for queue in waiting if queue.should_flush(now)]
        if not waiting:
            return None
        windows = [queue for queue in waiting if queue.stage == "classify"]
        candidates = windows or waiting
        self._round += 1
        return candidates[self._round % len(candidates)]
