"""The queue of one stage of one model, and the items and batches that go through it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, Literal, TypeVar

from tubelet.service.engine.batch_tuner import BatchTuning
from tubelet.service.fair_queue import FairQueue, Flow
from tubelet.service.metrics import Metrics

T = TypeVar("T")
R = TypeVar("R")

_LAST_BATCH_WEIGHT = 0.2  # of the last batch, in the moving average of an item's cost


@dataclass(slots=True)
class EngineCosts:
    """The wall seconds that one video has cost the engine so far.

    The time of a batch is split equally among its items. ``metrics`` count the work, or those of the engine
    where it is None.
    """

    metrics: Metrics | None = None
    queue_s: float = 0.0  # the longest wait of one item
    encode_s: float = 0.0
    classify_s: float = 0.0


@dataclass(slots=True)
class Item(Generic[T, R]):
    """A unit or window that waits for its batch: its ``payload``, and the future of its ``result``.

    An item may be queued under several flows at once. The first flow to be served schedules it.
    """

    payload: T
    costs: EngineCosts
    result: asyncio.Future[R]
    queued_at: float = field(default_factory=monotonic)
    flow: Flow[Any] | None = None  # the last one that it was queued under
    is_scheduled: bool = False


@dataclass(frozen=True, slots=True)
class PendingBatch(Generic[R]):
    """A batch that a device is still computing while its thread goes on; ``wait`` blocks for the results."""

    wait: Callable[[], Sequence[R]]


class BatchFailed(Exception):
    """A batch failed after its payloads were released, so a retry must compute ``retry_payloads`` instead.

    There can be no retry where they are empty. ``__cause__`` is the error of the batch.
    """

    def __init__(self, retry_payloads: Sequence[Any]) -> None:
        super().__init__(f"the batch failed; {len(retry_payloads)} of its items can be tried again")
        self.retry_payloads = retry_payloads


BatchFunction = Callable[[Sequence[T]], Sequence[R] | PendingBatch[R]]
"""Computes a batch on the thread of its device: as many results as payloads, in their order.

It may raise ``BatchFailed`` or any other exception.
"""


@dataclass(eq=False, slots=True)
class StageQueue(Generic[T, R]):
    """The items that wait for one stage of one model, and the function that computes it on each device.

    ``run_on`` maps the name of each device that has the model to its function. A batch of
    ``preferred_batch_size`` items takes ``preferred_batch_s`` seconds. An item costs hardly more in it than
    in a batch of ``max_batch_size``.
    """

    model: str
    stage: Literal["encode", "classify"]
    max_batch_size: int
    run_on: dict[str, BatchFunction[T, R]]
    preferred_batch_size: int = 1
    preferred_batch_s: float = 0.0
    item_s: float = 0.0  # average seconds that an item takes in a batch
    fair_queue: FairQueue[Item[T, R]] = field(default_factory=FairQueue)
    _waiting_since: float = 0.0  # when the first item came after the last batch was popped

    @property
    def flush_at(self) -> float:
        """The time to flush the queue: items wait for as long as a preferred batch takes to compute."""
        return self._waiting_since + self.preferred_batch_s

    def should_flush(self, now: float) -> bool:
        """Return whether to compute a batch at ``now``, as a fuller one is not worth waiting for."""
        return len(self.fair_queue) >= self.preferred_batch_size or now >= self.flush_at

    def put(self, flow: Flow[Item[T, R]], item: Item[T, R]) -> None:
        """Queue ``item`` under ``flow``."""
        if not len(self.fair_queue):
            self._waiting_since = item.queued_at
        item.flow = flow
        self.fair_queue.put(flow, item)

    def pop_batch(self, now: float) -> list[Item[T, R]]:
        """Remove and return up to ``max_batch_size`` items, without those cancelled or scheduled already."""
        batch: list[Item[T, R]] = []
        self._waiting_since = now
        while len(batch) < self.max_batch_size and len(self.fair_queue):
            item = self.fair_queue.take(now, self.item_s)
            if not item.is_scheduled and not item.result.cancelled():
                item.is_scheduled = True
                batch.append(item)
        return batch

    def resize(self, tuning: BatchTuning) -> None:
        """Use the batch sizes of ``tuning``, and its cost of an item while no batch has been recorded."""
        self.max_batch_size = tuning.max_size
        self.preferred_batch_size, self.preferred_batch_s = tuning.preferred_size, tuning.preferred_s
        self.item_s = self.item_s or tuning.unit_s

    def record_batch(self, seconds: float, size: int) -> None:
        """Update the average cost of an item: a batch of ``size`` items took ``seconds``."""
        weight = _LAST_BATCH_WEIGHT if self.item_s else 1.0
        self.item_s += weight * (seconds / size - self.item_s)
