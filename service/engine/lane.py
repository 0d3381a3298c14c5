"""One stage of one model: a queue that is fair to videos, and the function that a batch of it runs."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Account:
    """What one video has cost the engine so far, wall seconds; a batch's time is shared by its items."""

    queue_s: float = 0.0  # the longest wait of one item
    encode_s: float = 0.0
    classify_s: float = 0.0


@dataclass(slots=True)
class Item(Generic[T, R]):
    """Something that waits for its batch."""

    payload: T
    account: Account
    result: asyncio.Future[R]
    queued_at: float = field(default_factory=monotonic)


class FairQueue(Generic[T]):
    """Items taken in turn from each owner that has some, so that a long video cannot starve a short one.

    Not thread-safe: the engine holds its lock.
    """

    def __init__(self) -> None:
        self._by_owner: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, owner: Hashable, item: T) -> None:
        self._by_owner.setdefault(owner, deque()).append(item)
        self._length += 1

    def take(self) -> T:
        """The next item of the owner that has waited longest for a turn."""
        owner, items = self._by_owner.popitem(last=False)
        item = items.popleft()
        if items:
            self._by_owner[owner] = items  # behind all others
        self._length -= 1
        return item


@dataclass(slots=True)
class Lane(Generic[T, R]):
    """``run`` turns payloads into as many results, on the executor's thread."""

    model: str
    stage: Literal["encode", "classify"]
    max_batch: int
    run: Callable[[Sequence[T]], Sequence[R]]
    queue: FairQueue[Item[T, R]] = field(default_factory=FairQueue)

    def next_batch(self) -> list[Item[T, R]]:
        """Up to ``max_batch`` items that somebody still waits for."""
        batch: list[Item[T, R]] = []
        while len(batch) < self.max_batch and len(self.queue):
            item = self.queue.take()
            if not item.result.cancelled():
                batch.append(item)
        return batch
