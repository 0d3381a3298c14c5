"""Chunks, written one behind the other while the next ones come."""

import asyncio
from collections.abc import Callable

from service.storage import AnonymousFile, Piece

_AHEAD_BYTES = 4 << 20  # that wait for a disk; then so does who brings them: fewer writes cost less
_PIECE_BYTES = 256  # of memory that a piece takes beside its content
_GATHER_S = 0.002  # before a write to disk: a thread's turn costs more than a small message


class Spool:
    """``wrote`` hears how many bytes are in the file. What waits for the disk is written in one go.

    ``failed`` hears that a write went wrong while nobody waited for it; ``end`` says what.
    """

    def __init__(
        self, storage: AnonymousFile, wrote: Callable[[int], None], failed: Callable[[], None]
    ) -> None:
        self._storage = storage
        self._wrote = wrote
        self._failed = failed
        self._written_bytes = 0
        self._waiting: list[Piece] = []
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None

    async def put(self, chunk: Piece) -> None:
        """
        Raises:
            StorageFull, OSError: a chunk before it could not be written.
        """
        if not chunk:
            return
        if self._writing is not None and self._writing.done():
            await self.end()
        if self._writing is None and self._storage.stays_in_memory(len(chunk)):
            await self._write([chunk])
            return
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk) + _PIECE_BYTES
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_on())
            self._writing.add_done_callback(self._hear)
        elif self._waiting_bytes > _AHEAD_BYTES:
            await self.end()

    async def end(self) -> None:
        """Wait until all is in the file.

        Raises:
            StorageFull, OSError: a chunk could not be written.
        """
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    async def stop(self) -> None:
        """Write no more: the file may be closed then."""
        if self._writing is not None and not self._writing.done():
            self._writing.cancel()
            await asyncio.wait([self._writing])

    def _hear(self, writing: asyncio.Task[None]) -> None:
        if not writing.cancelled() and writing.exception() is not None:
            self._failed()

    async def _write_on(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHER_S)
            pieces, self._waiting, self._waiting_bytes = self._waiting, [], 0
            await self._write(pieces)

    async def _write(self, pieces: list[Piece]) -> None:
        await self._storage.write(self._written_bytes, pieces)
        self._written_bytes += sum(map(len, pieces))
        self._wrote(self._written_bytes)
