"""The explainer: explains windows layer by layer on its own thread, while nothing waits for a device."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor

from tubelet.models.explain.explain import explanation_steps
from tubelet.models.explain.explanation import Explanation, Question
from tubelet.models.spec import ModelSpec
from tubelet.models.video_model import VideoModel
from tubelet.service.engine.stage_queue import EngineCosts, Item
from tubelet.service.fair_queue import FairQueue, Flow
from tubelet.service.metrics import Metrics

_NICENESS = 19  # the lowest priority of a thread: others that wake up take its core at once


@dataclass(frozen=True, slots=True)
class WindowToExplain:
    """A window (S, t, H, W, C) uint8, what to explain of it, and the unpacked float32 copy of its model."""

    model: VideoModel
    spec: ModelSpec
    pixels: Tensor
    question: Question


ExplainFlow = Flow[Item[WindowToExplain, Explanation]]
"""The windows of one video that wait to be explained."""


class Explainer:
    """Explains one window after another, those of all videos in a fair order, on ``device``.

    Before each layer it calls ``wait_for_turn``, which blocks while anything else is queued, and returns
    False once the engine stops. Its thread has the lowest priority: what classifies meanwhile takes its core.
    """

    def __init__(self, wait_for_turn: Callable[[], bool], device: torch.device, metrics: Metrics) -> None:
        self._wait_for_turn = wait_for_turn
        self._device = device
        self._metrics = metrics
        self._queue: FairQueue[Item[WindowToExplain, Explanation]] = FairQueue()
        self._condition = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    async def explain(self, window: WindowToExplain, flow: ExplainFlow, costs: EngineCosts) -> Explanation:
        """Explain a window; a cancelled call stops before the next layer."""
        self._loop = asyncio.get_running_loop()
        item = Item(window, costs, self._loop.create_future())
        with self._condition:
            self._queue.put(flow, item)
            self._condition.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="explainer", daemon=True)
            self._thread.start()
        return await item.result

    async def stop(self) -> None:
        """End the thread, which stops before the next layer."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def queued(self) -> int:
        """The number of windows that wait to be explained."""
        return len(self._queue)

    def _run(self) -> None:
        """Explain windows until the explainer stops. It blocks."""
        if sys.platform == "linux":  # where the id of a thread is allowed, and its children inherit the value
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        torch.set_num_threads(1)  # on this thread: several would wait for each other where cores are taken
        with _lowest_stream(self._device):
            while (item := self._next()) is not None:
                self._explain(item)
                del item  # else the thread keeps the frames and the model while it waits

    def _next(self) -> Item[WindowToExplain, Explanation] | None:
        """Wait for the next window; None: the explainer stops."""
        with self._condition:
            while not self._stopping and not len(self._queue):
                self._condition.wait()
            return None if self._stopping else self._queue.take(monotonic())

    def _explain(self, item: Item[WindowToExplain, Explanation]) -> None:
        """Explain a window step by step; give its item the result, or the error that concerns it alone."""
        window, spent_s = item.payload, 0.0
        found: Explanation | Exception | None = None
        pixels = window.pixels.to(self._device)
        steps = explanation_steps(window.model, window.spec, pixels, window.question)
        while found is None and not item.result.cancelled() and self._wait_for_turn():
            start = monotonic()
            try:
                next(steps)
                if self._device.type == "cuda":
                    torch.cuda.current_stream(self._device).synchronize()
            except StopIteration as end:
                found = end.value
            except Exception as error:
                found = error
            spent_s += monotonic() - start
        self._loop.call_soon_threadsafe(self._end, item, found, spent_s)

    def _end(
        self, item: Item[WindowToExplain, Explanation], found: Explanation | Exception | None, spent_s: float
    ) -> None:
        """Give ``item`` its result, and count what it cost; None: it was cancelled."""
        item.costs.add("explain", spent_s)
        if found is None or item.result.done():
            item.result.cancel()
        elif isinstance(found, Exception):
            item.result.set_exception(found)
        else:
            metrics = item.costs.metrics or self._metrics
            metrics.observe_stage("explain", item.payload.spec.name, spent_s)
            item.result.set_result(found)


def _lowest_stream(device: torch.device) -> "nullcontext[None] | torch.cuda.StreamContext":
    """Return the context in which a GPU computes what other streams leave; on a CPU, one without effect."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()
