"""Embeddings of units that were seen before: of the same video again, or of a scene that stands still."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import numpy as np
from blake3 import blake3

from service.engine.hosted import HostedModel
from service.engine.replica import Embedding
from service.values import UnitFrames

Key = tuple[str, int, bytes]  # name and number of a model, digest of a unit's pixels
Outcome = Literal["hit", "shared", "miss"]

_ENTRY_BYTES = 256  # what an entry takes beside its embedding
_DIGEST_BYTES = 16


class EmbeddingCache:
    """The embeddings used last that fit ``max_bytes``, and those on their way. Lives on one event loop.

    Digests are keyed with a secret of this process (BLAKE3, in an eighth of BLAKE2's time): no client can
    make two units that share one. ``count`` hears of each unit whether its embedding was there, on its way,
    or neither.
    """

    def __init__(self, max_bytes: int, count: Callable[[str, Outcome], None]) -> None:
        self.used_bytes = 0
        self._max_bytes = max_bytes
        self._count = count
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[Key, Embedding] = OrderedDict()  # the one used last at the end
        self._coming: dict[Key, asyncio.Future[Embedding]] = {}

    def clear(self) -> None:
        self._known.clear()
        self.used_bytes = 0

    def key(self, model: HostedModel, pixels: np.ndarray) -> Key:
        digest = blake3(pixels.data, key=self._secret)
        return model.spec.name, model.number, digest.digest(_DIGEST_BYTES)

    def embed(
        self, key: Key, unit: UnitFrames, result: asyncio.Future[Embedding], compute: Callable[[], None]
    ) -> None:
        """Give ``result`` the embedding of ``unit``; ``compute`` is called if it has to be found out.

        A unit whose equal is computed already keeps its pixels until that is there: the video that asked
        first may be cancelled.
        """
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            self._answer(key, "hit", unit, result, known)
        elif (coming := self._coming.get(key)) is not None:
            coming.add_done_callback(lambda first: self._follow(first, key, unit, result, compute))
        else:
            self._coming[key] = result
            result.add_done_callback(lambda done: self._learn(key, done))
            self._count(key[0], "miss")
            compute()

    def _follow(
        self,
        first: asyncio.Future[Embedding],
        key: Key,
        unit: UnitFrames,
        result: asyncio.Future[Embedding],
        compute: Callable[[], None],
    ) -> None:
        if result.done():  # cancelled meanwhile
            return
        if first.cancelled() or first.exception() is not None:
            self.embed(key, unit, result, compute)
        else:
            self._answer(key, "shared", unit, result, first.result())

    def _answer(
        self,
        key: Key,
        outcome: Outcome,
        unit: UnitFrames,
        result: asyncio.Future[Embedding],
        embedding: Embedding,
    ) -> None:
        self._count(key[0], outcome)
        unit.release()
        result.set_result(embedding)

    def _learn(self, key: Key, done: asyncio.Future[Embedding]) -> None:
        del self._coming[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._known[key] = done.result()
        self.used_bytes += _size(done.result())
        while self.used_bytes > self._max_bytes:
            _, forgotten = self._known.popitem(last=False)
            self.used_bytes -= _size(forgotten)


def _size(embedding: Embedding) -> int:
    return embedding.nbytes + _ENTRY_BYTES
