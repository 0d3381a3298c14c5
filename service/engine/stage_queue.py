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
from tubelet.service.types.meter import UNMETERED, Meter

T = TypeVar("T")
R = TypeVar("R")

EngineStage = Literal["encode", "classify"]
"""The stages that devices compute."""

_LAST_BATCH_WEIGHT = 0.2  # of the last batch, in the moving average of an item's cost


@dataclass(slots=True)
class EngineCosts:
    """The wall seconds that one video has cost the engine so far.

    The time of a batch is split equally among its items. ``metrics`` count the work, or those of the engine
    where it is None. ``meter`` counts the seconds, too.
    """

    metrics: Metrics | None = None
    meter: Meter = UNMETERED
    queue_s: float = 0.0  # the longest wait of one item
    encode_s: float = 0.0
    classify_s: float = 0.0

    def add(self, stage: EngineStage, seconds: float) -> None:
        """Add what a device took for an item in ``stage``."""
        if stage == "encode":
            self.encode_s += seconds
        else:
            self.classify_s += seconds
        self.meter.count_device_s(seconds)


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

    ``run_on`` maps the name of each device that has the model to its function. ``tuning`` may be replaced by
    that of a later measurement.
    """

    model: str
    stage: EngineStage
    tuning: BatchTuning
    run_on: dict[str, BatchFunction[T, R]]
    fair_queue: FairQueue[Item[T, R]] = field(default_factory=FairQueue)
    item_s: float = field(init=False)  # average seconds that an item takes in a batch
    _waiting_since: float = field(init=False, default=0.0)  # for the first item since the last batch

    def __post_init__(self) -> None:
        self.item_s = self.tuning.item_s

    @property
    def flush_at(self) -> float:
        """The time to flush the queue: items wait for as long as a preferred batch takes to compute."""
        return self._waiting_since + self.tuning.preferred_s

    def should_flush(self, now: float) -> bool:
        """Return whether to compute a batch at ``now``, as a fuller one is not worth waiting for."""
        return len(self.fair_queue) >= self.tuning.preferred_size or now >= self.flush_at

    def put(self, flow: Flow[Item[T, R]], item: Item[T, R]) -> None:
        """Queue ``item`` under ``flow``."""
        if not len(self.fair_queue):
            self._waiting_since = item.queued_at
        item.flow = flow
        self.fair_queue.put(flow, item)

    def pop_batch(self, now: float) -> list[Item[T, R]]:
        """Remove and return up to ``tuning.max_size`` items, without those cancelled or scheduled already."""
        batch: list[Item[T, R]] = []
        self._waiting_since = now
        while len(batch) < self.tuning.max_size and len(self.fair_queue):
            item = self.fair_queue.take(now, self.item_s)
            if not item.is_scheduled and not item.result.cancelled():
                item.is_scheduled = True
                batch.append(item)
        return batch

    def record_batch(self, seconds: float, size: int) -> None:
        """Update the average cost of an item: a batch of ``size`` items took ``seconds``."""
        weight = _LAST_BATCH_WEIGHT if self.item_s else 1.0
        self.item_s += weight * (seconds / size - self.item_s)
