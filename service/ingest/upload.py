"""Uploads: chunks are written, in order, into a seekable file of limited size."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tubelet.service.config.config import UploadConfig
from tubelet.service.errors import EmptyUpload, UploadTooLarge
from tubelet.service.ingest.anonymous_file import AnonymousFile, Arrival, Piece

_AHEAD_BYTES = (
    4 << 20
)  # the most that waits for the disk; then the sender waits too. Few large writes cost less
_PIECE_BYTES = 256  # memory that a piece needs besides its content
_GATHER_S = 0.002  # pause before a write, to gather pieces: starting a thread costs more than a small piece


class WriteBuffer:
    """Buffers chunks while the disk is busy, and writes them together.

    It calls ``wrote(total_bytes)`` after each write, and ``failed()`` if a write fails in the background; the
    next ``flush`` raises the error.
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

    async def write(self, chunk: Piece) -> None:
        """Write ``chunk``, or buffer it; wait while the buffer is full.

        Raises:
            StorageFull, OSError: an earlier chunk could not be written.
        """
        if not chunk:
            return
        if self._writing is not None and self._writing.done():
            await self.flush()
        if self._writing is None and self._storage.is_written_directly(len(chunk)):
            await self._write([chunk])
            return
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk) + _PIECE_BYTES
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_on())
            self._writing.add_done_callback(self._hear)
        elif self._waiting_bytes > _AHEAD_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Wait until all chunks are in the file.

        Raises:
            StorageFull, OSError: a chunk could not be written.
        """
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    async def stop(self) -> None:
        """Cancel writing, so that the file can be closed."""
        if self._writing is not None and not self._writing.done():
            self._writing.cancel()
            await asyncio.wait([self._writing])

    def _hear(self, writing: asyncio.Task[None]) -> None:
        """Call ``failed`` if writing in the background failed."""
        if not writing.cancelled() and writing.exception() is not None:
            self._failed()

    async def _write_on(self) -> None:
        """Write what is buffered, until nothing is."""
        while self._waiting:
            await asyncio.sleep(_GATHER_S)
            pieces, self._waiting, self._waiting_bytes = self._waiting, [], 0
            await self._write(pieces)

    async def _write(self, pieces: list[Piece]) -> None:
        """Append ``pieces`` to the file, and report the bytes written so far."""
        await self._storage.write(self._written_bytes, pieces)
        self._written_bytes += sum(map(len, pieces))
        self._wrote(self._written_bytes)


class Upload:
    """The file of an upload that is still arriving; a ``VideoFile``."""

    def __init__(self, config: UploadConfig) -> None:
        self.size_bytes: int | None = None  # None: more bytes may arrive
        self._config = config
        self._storage = AnonymousFile(config)
        self._buffer = WriteBuffer(self._storage, self._wrote, self._give_up)
        self._arrived = 0
        self._arrival = Arrival()
        self._is_given_up = False
        self._filling: asyncio.Task[None]
        self._stopping: asyncio.Task[None]

    @property
    def fd(self) -> int:
        return self._storage.fd

    @property
    def is_whole(self) -> bool:
        return self.size_bytes is not None

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        """Wait for the byte at ``start`` or the end of the file; return the range [0, end) that has arrived.

        Raises:
            UploadTooLarge, EmptyUpload, StorageFull, or the error that ended the chunks.
        """
        while self._arrived <= start and self.size_bytes is None:
            await self._arrival.wait(self._filling)
        return 0, self._arrived

    async def whole(self) -> int:
        """Wait for all bytes; return the size of the file in bytes.

        Raises:
            UploadTooLarge, EmptyUpload, StorageFull, or the error that ended the chunks.
        """
        await asyncio.shield(self._filling)
        return self._arrived

    def start(self, chunks: AsyncIterator[Piece]) -> None:
        """Start to read ``chunks`` in the background."""
        self._filling = asyncio.create_task(self._fill(chunks))

    async def stop(self) -> None:
        """Stop reading and close the file; this goes on if the caller is cancelled."""
        self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        """Stop reading and writing, then close the file."""
        self._filling.cancel()
        await asyncio.wait((self._filling,))
        if not self._filling.cancelled():
            self._filling.exception()  # mark the error as seen
        await self._buffer.stop()
        self._storage.close()

    async def _fill(self, chunks: AsyncIterator[Piece]) -> None:
        """Write ``chunks`` to the file until they end; then the size is known.

        Raises:
            UploadTooLarge, EmptyUpload, StorageFull, or the error that ended the chunks.
        """
        size = 0
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._config.max_bytes:
                    raise UploadTooLarge(
                        f"the video is larger than the limit of {self._config.max_bytes} bytes",
                        limit=self._config.max_bytes,
                        value=f">={size}",
                    )
                await self._buffer.write(chunk)
            await self._buffer.flush()
        except asyncio.CancelledError:
            if self._is_given_up:
                await self._buffer.flush()  # raises the error of the write
            raise
        if size == 0:
            raise EmptyUpload("the video is empty: no byte was uploaded")
        self.size_bytes = size

    def _wrote(self, count: int) -> None:
        """Record that ``count`` bytes of the file have been written, and wake who waits for them."""
        self._arrived = count
        self._arrival.notify()

    def _give_up(self) -> None:
        """Stop reading after a failed write, since no further chunk may ever arrive."""
        self._is_given_up = True
        self._filling.cancel()


@asynccontextmanager
async def receive(chunks: AsyncIterator[Piece], config: UploadConfig) -> AsyncIterator[Upload]:
    """Store ``chunks`` as they arrive, in a file that exists as long as the context."""
    upload = Upload(config)
    upload.start(chunks)
    try:
        yield upload
    finally:
        await upload.stop()
