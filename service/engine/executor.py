"""The thread that owns a device: it takes whatever is queued the moment the device is free."""

import asyncio
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

from service.engine.lane import Item, Lane
from service.metrics import Metrics


class Executor:
    """Runs batches of all lanes on one thread; results come back on the event loop.

    Windows go before units: they are cheap, and a finished one is a result that a client waits for.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lanes: list[Lane[Any, Any]] = []
        self._condition = threading.Condition()
        self._stopping = False
        self._turn = 0
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread

    async def __aenter__(self) -> "Executor":
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify()
        await asyncio.to_thread(self._thread.join)

    def add(self, lane: Lane[Any, Any]) -> None:
        with self._condition:
            self._lanes.append(lane)

    def submit(self, lane: Lane[Any, Any], owner: object, item: Item[Any, Any]) -> None:
        with self._condition:
            lane.queue.put(owner, item)
            self._condition.notify()
        self._show_depth(lane)

    def _run(self) -> None:
        while True:
            with self._condition:
                while (lane := self._next_lane()) is None and not self._stopping:
                    self._condition.wait()
                if lane is None or self._stopping:
                    return
                batch = lane.next_batch()
            if batch:
                self._run_batch(lane, batch)

    def _next_lane(self) -> Lane[Any, Any] | None:
        waiting = [lane for lane in self._lanes if len(lane.queue)]
        if not waiting:
            return None
        windows = [lane for lane in waiting if lane.stage == "classify"]
        candidates = windows or waiting
        self._turn += 1
        return candidates[self._turn % len(candidates)]

    def _run_batch(self, lane: Lane[Any, Any], batch: list[Item[Any, Any]]) -> None:
        start = monotonic()
        try:
            outcome = lane.run([item.payload for item in batch])
        except Exception as error:  # whatever a device or a model throws belongs to this batch alone
            outcome = error
        self._loop.call_soon_threadsafe(self._deliver, lane, batch, outcome, start, monotonic() - start)

    def _deliver(
        self,
        lane: Lane[Any, Any],
        batch: list[Item[Any, Any]],
        outcome: Sequence[Any] | Exception,
        start: float,
        seconds: float,
    ) -> None:
        self._show_depth(lane)
        self._metrics.engine_busy_seconds.inc(seconds)
        self._metrics.stage_seconds.labels(lane.stage).observe(seconds)
        self._metrics.stage_seconds.labels("queue").observe(start - batch[0].queued_at)
        sizes = self._metrics.batch_units if lane.stage == "encode" else self._metrics.batch_windows
        sizes.labels(lane.model).observe(len(batch))
        for index, item in enumerate(batch):
            item.account.queue_s = max(item.account.queue_s, start - item.queued_at)
            if lane.stage == "encode":
                item.account.encode_s += seconds / len(batch)
            else:
                item.account.classify_s += seconds / len(batch)
            if item.result.cancelled():
                continue
            if isinstance(outcome, Exception):
                item.result.set_exception(outcome)
            else:
                item.result.set_result(outcome[index])

    def _show_depth(self, lane: Lane[Any, Any]) -> None:
        depth = self._metrics.queued_units if lane.stage == "encode" else self._metrics.queued_windows
        depth.labels(lane.model).set(len(lane.queue))
