"""What one video asks of the engine."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tubelet.service.engine.embedding_cache import EmbeddingCache, Unit
from tubelet.service.engine.executor import Executor
from tubelet.service.engine.model_runner import Embedding, Logits
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.engine.stage_queue import EngineCosts, Item, StageQueue
from tubelet.service.fair_queue import Flow
from tubelet.service.metrics import Metrics
from tubelet.service.types.request import Priority
from tubelet.service.types.video import UnitFrames


class VideoSession:
    """Its claims in the fair queues, and its account.

    ``deadline`` is a time of the monotonic clock; ``metrics`` count the work, or the engine's where None.
    """

    def __init__(
        self,
        executor: Executor,
        model: ServedModel,
        cache: EmbeddingCache | None = None,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.costs = EngineCosts(metrics)
        self.deadline = deadline
        self._executor = executor
        self._model = model
        self._cache = cache
        self._units: Flow[Any] = Flow(priority, deadline, model.spec.sampling.units_per_window)
        self._windows: Flow[Any] = Flow(priority, deadline)
        self._pending: set[asyncio.Future[Any]] = set()

    @property
    def model(self) -> str:
        """The name of the model that it asks."""
        return self._model.spec.name

    def encode(self, unit: UnitFrames) -> asyncio.Future[Embedding]:
        """Queue a unit that is not known yet; it is released once its pixels are not needed any more."""
        embedding: asyncio.Future[Embedding] = self._promise()
        if self._cache is None:
            self._submit(self._model.encode, self._units, unit, embedding)
        else:
            # Who decoded it may still write there: what is computed must be what the key is of.
            own = replace(unit, pixels=unit.pixels.copy())
            key = self._cache.key(self._model, own.pixels)
            self._cache.lookup_or_enqueue(key, Item(own, self.costs, embedding), self._enqueue)
        return embedding

    async def classify(self, units: Sequence[asyncio.Future[Embedding]]) -> Logits:
        """The logits (K,) of the window of these S units, in order."""
        embeddings = [await unit for unit in units]
        logits: asyncio.Future[Logits] = self._promise()
        self._submit(self._model.classify, self._windows, embeddings, logits)
        return await logits

    def cancel(self) -> None:
        """Drop all that is not in a batch yet."""
        for future in tuple(self._pending):
            future.cancel()

    def _promise(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _enqueue(self, unit: Unit) -> None:
        """Under this video's claim, if it is under none yet, or under one that this goes before."""
        if unit.flow is None or self._units.outranks(unit.flow):
            self._executor.submit(self._model.encode, self._units, unit)

    def _submit(
        self, queue: StageQueue[Any, Any], flow: Flow[Any], payload: Any, result: asyncio.Future[Any]
    ) -> None:
        self._executor.submit(queue, flow, Item(payload, self.costs, result))
