"""The vectors that a client has not read yet: decoding waits while they take too much memory."""

import asyncio

from tubelet.service.pipeline.windows import StartedWindow

_MAX_BYTES = 16 << 20


class UnreadVectors:
    """The bytes of the vectors of windows that are computed and that nobody has taken yet."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    def watch(self, window: StartedWindow) -> None:
        """Count the vectors of ``window`` from when it is computed until ``take``."""
        window.add_done_callback(self._add)

    def take(self, window: StartedWindow) -> None:
        """Stop counting the vectors of ``window``, which is computed."""
        self._change(-window.result().vector_bytes)

    async def wait_for_room(self) -> None:
        """Wait until the client has read enough of them."""
        await self._has_room.wait()

    def _add(self, window: StartedWindow) -> None:
        """Count the vectors of ``window``, unless it failed."""
        if not window.cancelled() and window.exception() is None:
            self._change(window.result().vector_bytes)

    def _change(self, by: int) -> None:
        """Add to the bytes, and tell who waits."""
        self._bytes += by
        if self._bytes <= self._max_bytes:
            self._has_room.set()
        else:
            self._has_room.clear()
