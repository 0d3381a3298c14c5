"""Embeddings of units that were seen before: of the same video again, or of a scene that stands still."""

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

Key = tuple[str, int, bytes]  # name and number of a model, digest of a unit's pixels
Unit = Item[UnitFrames, Embedding]
Outcome = Literal["hit", "shared", "miss"]

_ENTRY_BYTES = 256  # what an entry takes beside its embedding
_DIGEST_BYTES = 16


class EmbeddingCache:
    """The embeddings used last that fit ``max_bytes``, and those on their way. Lives on one event loop.

    Digests are keyed with a secret of this process (BLAKE3, in an eighth of BLAKE2's time): no client can
    make two units that share one. ``count`` is called for each unit with the name of its model, and whether
    its embedding was there, on its way, or neither.
    """

    def __init__(self, max_bytes: int, count: Callable[[Unit, str, Outcome], None]) -> None:
        self.used_bytes = 0
        self._max_bytes = max_bytes
        self._count = count
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[Key, Embedding] = OrderedDict()  # the one used last at the end
        self._in_flight: dict[Key, Unit] = {}

    def clear(self) -> None:
        self._known.clear()
        self.used_bytes = 0

    def key(self, model: ServedModel, pixels: np.ndarray) -> Key:
        digest = blake3(pixels.data, key=self._secret)
        return model.spec.name, model.instance_id, digest.digest(_DIGEST_BYTES)

    def lookup_or_enqueue(self, key: Key, unit: Unit, enqueue: Callable[[Unit], None]) -> None:
        """Give ``unit`` its embedding; what has to be computed for it is handed to ``queue``.

        That may be its equal, which is queued for another video already: so who is in a hurry need not wait
        for the other's turn. The unit keeps its pixels until the embedding is there: the video that asked
        first may be cancelled.
        """
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            self._answer(key, "hit", unit, known)
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
        if unit.result.done():  # cancelled meanwhile
            return
        if first.cancelled() or first.exception() is not None:
            self.lookup_or_enqueue(key, unit, enqueue)
        else:
            self._answer(key, "shared", unit, first.result())

    def _answer(self, key: Key, outcome: Outcome, unit: Unit, embedding: Embedding) -> None:
        self._count(unit, key[0], outcome)
        unit.payload.release()
        unit.result.set_result(embedding)

    def _store(self, key: Key, done: asyncio.Future[Embedding]) -> None:
        del self._in_flight[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._known[key] = done.result()
        self.used_bytes += _size(done.result())
        while self.used_bytes > self._max_bytes:
            _, forgotten = self._known.popitem(last=False)
            self.used_bytes -= _size(forgotten)


def _size(embedding: Embedding) -> int:
    return embedding.nbytes + _ENTRY_BYTES
