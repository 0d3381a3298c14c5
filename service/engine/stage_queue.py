"""One stage of one model: what waits for it, and what computes a batch of it on each device."""

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

_NEWEST = 0.2  # how much of the average cost is the last batch's


@dataclass(slots=True)
class EngineCosts:
    """What one video has cost the engine so far, wall seconds; a batch's time is shared by its items."""

    metrics: Metrics | None = None  # that count the work for it; None: the engine's
    queue_s: float = 0.0  # the longest wait of one item
    encode_s: float = 0.0
    classify_s: float = 0.0


@dataclass(slots=True)
class Item(Generic[T, R]):
    """Something that waits for its batch, maybe under several claims: whose turn comes first takes it."""

    payload: T
    costs: EngineCosts
    result: asyncio.Future[R]
    queued_at: float = field(default_factory=monotonic)
    flow: Flow[Any] | None = None  # the last that it was queued under
    is_scheduled: bool = False


@dataclass(frozen=True, slots=True)
class PendingBatch(Generic[R]):
    """A batch that a device computes while its thread prepares the next one."""

    wait: Callable[[], Sequence[R]]


class BatchFailed(Exception):
    """A batch failed that had been let go already: another device is to take ``payloads`` in its place.

    Without any there is nothing left to try again. Its cause is what went wrong.
    """

    def __init__(self, payloads: Sequence[Any]) -> None:
        super().__init__(f"{len(payloads)} items are left")
        self.payloads = payloads


BatchFunction = Callable[[Sequence[T]], Sequence[R] | PendingBatch[R]]
"""Turns payloads into as many results, on the thread of its device; raises ``BatchFailed`` or others."""


@dataclass(eq=False, slots=True)
class StageQueue(Generic[T, R]):
    """``runs`` has a function for each device that the model is on.

    In a batch of ``enough`` items, which takes ``enough_s`` seconds, one costs hardly more than in a full
    one.
    """

    model: str
    stage: Literal["encode", "classify"]
    max_batch_size: int
    run_on: dict[str, BatchFunction[T, R]]
    preferred_batch_size: int = 1
    preferred_batch_s: float = 0.0
    item_s: float = 0.0  # about what one item takes, in a batch
    fair_queue: FairQueue[Item[T, R]] = field(default_factory=FairQueue)
    _waiting_since: float = 0.0  # what is queued has waited for its batch from then on

    @property
    def flush_at(self) -> float:
        """What is queued has waited for more for as long as enough would take to compute."""
        return self._waiting_since + self.preferred_batch_s

    def should_flush(self, now: float) -> bool:
        """Is there nothing to be gained by waiting for more?"""
        return len(self.fair_queue) >= self.preferred_batch_size or now >= self.flush_at

    def put(self, flow: Flow[Item[T, R]], item: Item[T, R]) -> None:
        if not len(self.fair_queue):
            self._waiting_since = item.queued_at
        item.flow = flow
        self.fair_queue.put(flow, item)

    def pop_batch(self, now: float) -> list[Item[T, R]]:
        """Up to ``max_batch`` items that somebody still waits for."""
        batch: list[Item[T, R]] = []
        self._waiting_since = now
        while len(batch) < self.max_batch_size and len(self.fair_queue):
            item = self.fair_queue.take(now, self.item_s)
            if not item.is_scheduled and not item.result.cancelled():
                item.is_scheduled = True
                batch.append(item)
        return batch

    def resize(self, tuning: BatchTuning) -> None:
        """Take the sizes of batches from ``tuning``; and what an item costs, unless batches have shown it."""
        self.max_batch_size = tuning.max_size
        self.preferred_batch_size, self.preferred_batch_s = tuning.preferred_size, tuning.preferred_s
        self.item_s = self.item_s or tuning.unit_s

    def record_batch(self, seconds: float, items: int) -> None:
        """A batch took so long."""
        newest = _NEWEST if self.item_s else 1.0
        self.item_s += newest * (seconds / items - self.item_s)
