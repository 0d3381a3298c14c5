"""The session of one video with the engine."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from tubelet.service.engine.embedding_cache import EmbeddingCache, Unit
from tubelet.service.engine.model_runner import Embedding, Logits, WindowInput, WindowOutput
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.engine.stage_queue import EngineCosts, Item, StageQueue
from tubelet.service.fair_queue import Flow
from tubelet.service.types.request import Priority
from tubelet.service.types.video import UnitFrames


class Submits(Protocol):
    """What computes items: an ``Executor``, or one that goes last."""

    def submit(self, queue: StageQueue[Any, Any], flow: Flow[Any], item: Item[Any, Any]) -> None: ...


class VideoSession:
    """Computes the units and windows of one video, by a flow in each queue of ``model``; adds up ``costs``.

    Queued items go by ``priority``, then by the identity of the costs' meter, then by ``deadline``, a time of
    the monotonic clock.
    """

    def __init__(
        self,
        executor: Submits,
        model: ServedModel,
        cache: EmbeddingCache | None = None,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        costs: EngineCosts | None = None,
    ) -> None:
        self.costs = costs or EngineCosts()
        self._executor = executor
        self._model = model
        self._cache = cache
        identity = self.costs.meter.identity
        self._units: Flow[Any] = Flow(priority, deadline, model.spec.sampling.units_per_window, identity)
        self._windows: Flow[Any] = Flow(priority, deadline, identity=identity)
        self._pending: set[asyncio.Future[Any]] = set()

    def encode(self, unit: UnitFrames) -> asyncio.Future[Embedding]:
        """Return the future embedding (D,) of ``unit``, which is released once its pixels are copied."""
        embedding: asyncio.Future[Embedding] = self._promise()
        if self._cache is None:
            self._submit(self._model.encode, self._units, unit, embedding)
        else:
            # The decoder may still write to the unit's memory. The key must be that of the computed pixels.
            own = replace(unit, pixels=unit.pixels.copy())
            key = self._cache.key(self._model, own.pixels)
            self._cache.lookup_or_enqueue(key, Item(own, self.costs, embedding), self._enqueue)
        return embedding

    async def classify(self, units: Sequence[asyncio.Future[Embedding]]) -> Logits:
        """Compute the logits (K,) of a window from the future embeddings of its S ``units``, in order."""
        return await self.compute(units, WindowOutput.LOGITS)

    async def compute(self, units: Sequence[asyncio.Future[Embedding]], output: WindowOutput) -> np.ndarray:
        """Compute ``output`` of a window from the future embeddings of its S ``units``, in order."""
        embeddings = [await unit for unit in units]
        row: asyncio.Future[np.ndarray] = self._promise()
        self._submit(self._model.classify, self._windows, WindowInput(embeddings, output), row)
        return await row

    async def classify_and_pool(
        self, units: Sequence[asyncio.Future[Embedding]]
    ) -> tuple[Logits, np.ndarray]:
        """Compute the logits (K,) and the vector (E,) of a window from its S ``units``, in order."""
        row = await self.compute(units, WindowOutput.BOTH)
        labels = len(self._model.spec.labels)
        return row[:labels], row[labels:]

    def cancel(self) -> None:
        """Cancel all units and windows of this video that are not in a batch yet."""
        for future in tuple(self._pending):
            future.cancel()

    def _promise(self) -> asyncio.Future[Any]:
        """Return a new future, which ``cancel`` cancels."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.add(future)
        future.add_done_callback(self._forget)
        return future

    def _forget(self, done: asyncio.Future[Any]) -> None:
        """Forget a future that is done; its error is seen: a window awaits no unit after one that failed."""
        self._pending.discard(done)
        if not done.cancelled():
            done.exception()

    def _enqueue(self, unit: Unit) -> None:
        """Queue ``unit`` under this video's flow, if it is in none yet, or this one may be earlier."""
        if unit.flow is None or self._units.may_precede(unit.flow):
            self._executor.submit(self._model.encode, self._units, unit)

    def _submit(
        self, queue: StageQueue[Any, Any], flow: Flow[Any], payload: Any, result: asyncio.Future[Any]
    ) -> None:
        """Queue ``payload`` for a stage of the model; ``result`` gets what is computed."""
        self._executor.submit(queue, flow, Item(payload, self.costs, result))
