"""The explainer: explains windows in small steps on its own thread, while others leave the device free."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import nullcontext
from time import monotonic
from typing import Any

import torch

from tubelet.service.engine.small_steps import Interrupted, SmallSteps
from tubelet.service.engine.stage_queue import Item
from tubelet.service.fair_queue import FairQueue, Flow

Work = Callable[[], Generator[None, None, Any]]
"""Begins a computation that yields between its steps, and returns a result."""

_NICENESS = 19  # the lowest priority of a thread: others that wake up take its core at once


class Explainer:
    """Computes the steps of one item after another, those of all videos in a fair order, on ``device``.

    Before each step it calls ``wait_for_turn``, which blocks while others need the device, and returns False
    once the engine stops. A step is a layer; on a CPU, a few milliseconds of it. Its thread has the lowest
    priority: what classifies meanwhile takes its core.
    """

    def __init__(self, wait_for_turn: Callable[[], bool], device: torch.device) -> None:
        self.device = device
        self._wait_for_turn = wait_for_turn
        self._queue: FairQueue[Item[Work, Any]] = FairQueue()
        self._condition = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    def submit(self, flow: Flow[Item[Work, Any]], item: Item[Work, Any]) -> None:
        """Queue ``item`` under ``flow``; its result is set on the event loop, from which this is called."""
        self._loop = asyncio.get_running_loop()
        with self._condition:
            self._queue.put(flow, item)
            self._condition.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="explainer", daemon=True)
            self._thread.start()

    async def stop(self) -> None:
        """End the thread, which stops before the next step."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def queued(self) -> int:
        """The number of items that wait."""
        return len(self._queue)

    def _run(self) -> None:
        """Compute items until the explainer stops. It blocks."""
        if sys.platform == "linux":  # elsewhere, the priority would be that of the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        torch.set_num_threads(1)  # on this thread: several would wait for each other where cores are taken
        with _stream(self.device):
            while (item := self._next()) is not None:
                self._compute(item)
                del item  # else the thread keeps the frames and the model while it waits

    def _next(self) -> Item[Work, Any] | None:
        """Wait for the next item; None: the explainer stops."""
        with self._condition:
            while not self._stopping and not len(self._queue):
                self._condition.wait()
            return None if self._stopping else self._queue.take(monotonic())

    def _compute(self, item: Item[Work, Any]) -> None:
        """Compute an item step by step; give it the result, or the error that concerns it alone."""
        ended: StopIteration | Exception | None = None
        steps, begun, waited_s = item.payload(), monotonic(), 0.0

        def go_on() -> bool:
            nonlocal waited_s
            start = monotonic()
            has_turn = not item.result.cancelled() and self._wait_for_turn()
            waited_s += monotonic() - start
            return has_turn

        while ended is None and go_on():
            try:
                with SmallSteps(go_on) if self.device.type == "cpu" else nullcontext():
                    next(steps)
                if self.device.type == "cuda":
                    ended_there = torch.cuda.Event(blocking=True)  # another one keeps a core busy
                    ended_there.record(torch.cuda.current_stream(self.device))
                    ended_there.synchronize()
            except Interrupted:
                break
            except Exception as end:
                ended = end
        spent_s = monotonic() - begun - waited_s
        self._loop.call_soon_threadsafe(_end, item, ended, spent_s)


def _end(item: Item[Work, Any], ended: StopIteration | Exception | None, spent_s: float) -> None:
    """Count what ``item`` cost, and give it its result or error; None: it was cancelled, or all stops."""
    item.costs.meter.count_device_s(spent_s)
    if ended is None or item.result.done():
        item.result.cancel()
    elif isinstance(ended, StopIteration):
        item.result.set_result(ended.value)
    else:
        item.result.set_exception(ended)


def _stream(device: torch.device) -> "nullcontext[None] | torch.cuda.StreamContext":
    """Return the context of a stream of its own on a GPU; on a CPU, one without effect."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()
