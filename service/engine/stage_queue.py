"""One stage of one model: what waits for it, and what computes a batch of it on each device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, Literal, TypeVar

from tubelet.service.engine.batch_tuner import BatchTuning
from tubelet.service.fair_queue import Claim, FairQueue
from tubelet.service.metrics import Metrics

T = TypeVar("T")
R = TypeVar("R")

_NEWEST = 0.2  # how much of the average cost is the last batch's


@dataclass(slots=True)
class Account:
    """What one video has cost the engine so far, wall seconds; a batch's time is shared by its items."""

    metrics: Metrics | None = None  # that count the work for it; None: the engine's
    queue_s: float = 0.0  # the longest wait of one item
    encode_s: float = 0.0
    classify_s: float = 0.0


@dataclass(slots=True)
class Item(Generic[T, R]):
    """Something that waits for its batch, maybe under several claims: whose turn comes first takes it."""

    payload: T
    account: Account
    result: asyncio.Future[R]
    queued_at: float = field(default_factory=monotonic)
    claim: Claim[Any] | None = None  # the last that it was queued under
    is_taken: bool = False


@dataclass(frozen=True, slots=True)
class Started(Generic[R]):
    """A batch that a device computes while its thread prepares the next one."""

    wait: Callable[[], Sequence[R]]


class Unfinished(Exception):
    """A batch failed that had been let go already: another device is to take ``payloads`` in its place.

    Without any there is nothing left to try again. Its cause is what went wrong.
    """

    def __init__(self, payloads: Sequence[Any]) -> None:
        super().__init__(f"{len(payloads)} items are left")
        self.payloads = payloads


Run = Callable[[Sequence[T]], Sequence[R] | Started[R]]
"""Turns payloads into as many results, on the thread of its device; raises ``Unfinished`` or others."""


@dataclass(eq=False, slots=True)
class Lane(Generic[T, R]):
    """``runs`` has a function for each device that the model is on.

    In a batch of ``enough`` items, which takes ``enough_s`` seconds, one costs hardly more than in a full
    one.
    """

    model: str
    stage: Literal["encode", "classify"]
    max_batch: int
    runs: dict[str, Run[T, R]]
    enough: int = 1
    enough_s: float = 0.0
    item_s: float = 0.0  # about what one item takes, in a batch
    queue: FairQueue[Item[T, R]] = field(default_factory=FairQueue)
    _since: float = 0.0  # what is queued has waited for its batch from then on

    @property
    def ripe_at(self) -> float:
        """What is queued has waited for more for as long as enough would take to compute."""
        return self._since + self.enough_s

    def is_ripe(self, now: float) -> bool:
        """Is there nothing to be gained by waiting for more?"""
        return len(self.queue) >= self.enough or now >= self.ripe_at

    def put(self, claim: Claim[Item[T, R]], item: Item[T, R]) -> None:
        if not len(self.queue):
            self._since = item.queued_at
        item.claim = claim
        self.queue.put(claim, item)

    def next_batch(self, now: float) -> list[Item[T, R]]:
        """Up to ``max_batch`` items that somebody still waits for."""
        batch: list[Item[T, R]] = []
        self._since = now
        while len(batch) < self.max_batch and len(self.queue):
            item = self.queue.take(now, self.item_s)
            if not item.is_taken and not item.result.cancelled():
                item.is_taken = True
                batch.append(item)
        return batch

    def resize(self, tuning: BatchTuning) -> None:
        """Take the sizes of batches from ``tuning``; and what an item costs, unless batches have shown it."""
        self.max_batch = tuning.max_size
        self.enough, self.enough_s = tuning.preferred_size, tuning.preferred_s
        self.item_s = self.item_s or tuning.unit_s

    def learn(self, seconds: float, items: int) -> None:
        """A batch took so long."""
        newest = _NEWEST if self.item_s else 1.0
        self.item_s += newest * (seconds / items - self.item_s)
