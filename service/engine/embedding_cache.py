"""The cache of embeddings, for units seen before: of the same video again, or of a scene without motion."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import numpy as np
from blake3 import blake3

from tubelet.service.engine.model_runner import Embedding
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.engine.stage_queue import Item
from tubelet.service.types.video import UnitFrames

Key = tuple[str, int, bytes]  # name and instance id of a model, digest of a unit's pixels
Unit = Item[UnitFrames, Embedding]
Outcome = Literal["hit", "shared", "miss"]

_ENTRY_BYTES = 256  # memory of an entry beside its embedding
_DIGEST_BYTES = 16


class EmbeddingCache:
    """A least recently used cache of embeddings in ``max_bytes``; it also knows the units being computed.

    It lives on one event loop. Digests are keyed with a secret of this process, so that no client can make
    two units with the same digest. (BLAKE3 takes an eighth of BLAKE2's time.) ``count`` is called for each
    unit with the name of its model and the outcome: ``hit``, the embedding was cached; ``shared``, an
    identical unit was being computed; or ``miss``.
    """

    def __init__(self, max_bytes: int, count: Callable[[Unit, str, Outcome], None]) -> None:
        self.used_bytes = 0
        self._max_bytes = max_bytes
        self._count = count
        self._secret = secrets.token_bytes(32)
        self._cached: OrderedDict[Key, Embedding] = OrderedDict()  # the most recently used one last
        self._in_flight: dict[Key, Unit] = {}

    def clear(self) -> None:
        """Drop all embeddings. Units that are being computed go on."""
        self._cached.clear()
        self.used_bytes = 0

    def key(self, model: ServedModel, pixels: np.ndarray) -> Key:
        """Return the key of a unit with ``pixels`` for ``model``."""
        digest = blake3(pixels.data, key=self._secret)
        return model.spec.name, model.instance_id, digest.digest(_DIGEST_BYTES)

    def lookup_or_enqueue(self, key: Key, unit: Unit, enqueue: Callable[[Unit], None]) -> None:
        """Set the result of ``unit`` from the cache, or call ``enqueue`` with the unit to compute for it.

        If an identical unit is being computed for another video, that one is enqueued again, under the flow
        of this video: a high-priority video does not wait for a low-priority one. ``unit`` keeps its pixels
        until it has its result, since the other video may be cancelled.
        """
        cached = self._cached.get(key)
        if cached is not None:
            self._cached.move_to_end(key)
            self._resolve(key, "hit", unit, cached)
        elif (in_flight := self._in_flight.get(key)) is not None:
            in_flight.result.add_done_callback(lambda first: self._on_shared_done(first, key, unit, enqueue))
            enqueue(in_flight)
        else:
            self._in_flight[key] = unit
            unit.result.add_done_callback(lambda done: self._store(key, done))
            self._count(unit, key[0], "miss")
            enqueue(unit)

    def _on_shared_done(
        self, first: asyncio.Future[Embedding], key: Key, unit: Unit, enqueue: Callable[[Unit], None]
    ) -> None:
        """Set the result of ``unit`` from ``first``, its equal; look ``unit`` up again if that failed."""
        if unit.result.done():  # cancelled meanwhile
            return
        if first.cancelled() or first.exception() is not None:
            self.lookup_or_enqueue(key, unit, enqueue)
        else:
            self._resolve(key, "shared", unit, first.result())

    def _resolve(self, key: Key, outcome: Outcome, unit: Unit, embedding: Embedding) -> None:
        """Set the result of ``unit``, count the outcome, and release its pixels."""
        self._count(unit, key[0], outcome)
        unit.payload.release()
        unit.result.set_result(embedding)

    def _store(self, key: Key, done: asyncio.Future[Embedding]) -> None:
        """Cache the embedding of a unit that was computed, and evict the least recently used ones."""
        del self._in_flight[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._cached[key] = done.result()
        self.used_bytes += _size(done.result())
        while self.used_bytes > self._max_bytes:
            _, evicted = self._cached.popitem(last=False)
            self.used_bytes -= _size(evicted)


def _size(embedding: Embedding) -> int:
    """Return the bytes that an entry takes."""
    return embedding.nbytes + _ENTRY_BYTES
