"""Chunks -> a bounded, seekable, anonymous file, from the front."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.config import UploadConfig
from service.errors import EmptyUpload, UploadTooLarge
from service.growth import Growth
from service.spool import Spool
from service.storage import AnonymousFile, Piece


class Upload:
    """A video's bytes as they come in: a ``service.values.VideoFile``."""

    def __init__(self, config: UploadConfig) -> None:
        self.size_bytes: int | None = None  # None: more may come
        self._config = config
        self._storage = AnonymousFile(config)
        self._spool = Spool(self._storage, self._wrote, self._give_up)
        self._arrived = 0
        self._growth = Growth()
        self._is_given_up = False
        self._filling: asyncio.Task[None]
        self._stopping: asyncio.Task[None]

    @property
    def fd(self) -> int:
        return self._storage.fd

    @property
    def is_whole(self) -> bool:
        return self.size_bytes is not None

    @property
    def arrived_bytes(self) -> int:
        return self._arrived

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        """Wait for the byte at ``start``, or for the end of the file: -> [start, end) of what is there.

        Raises:
            UploadTooLarge, EmptyUpload, StorageFull, or whatever ended the chunks.
        """
        while self._arrived <= start and self.size_bytes is None:
            await self._growth.more(self._filling)
        return 0, self._arrived

    async def whole(self) -> int:
        """Wait for all of it: its size in bytes.

        Raises:
            UploadTooLarge, EmptyUpload, StorageFull, or whatever ended the chunks.
        """
        await asyncio.shield(self._filling)
        return self._arrived

    def start(self, chunks: AsyncIterator[Piece]) -> None:
        self._filling = asyncio.create_task(self._fill(chunks))

    async def stop(self) -> None:
        """Whoever does not wait for its end leaves it to itself."""
        self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        self._filling.cancel()
        await asyncio.wait((self._filling,))
        if not self._filling.cancelled():
            self._filling.exception()  # whoever wanted to know has asked
        await self._spool.stop()
        self._storage.close()

    async def _fill(self, chunks: AsyncIterator[Piece]) -> None:
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
                await self._spool.put(chunk)
            await self._spool.end()
        except asyncio.CancelledError:
            if self._is_given_up:
                await self._spool.end()  # which says why
            raise
        if size == 0:
            raise EmptyUpload("the video is empty: no byte came")
        self.size_bytes = size

    def _wrote(self, count: int) -> None:
        self._arrived = count
        self._growth.grew()

    def _give_up(self) -> None:
        """More may not come for long, or never."""
        self._is_given_up = True
        self._filling.cancel()


@asynccontextmanager
async def receive(chunks: AsyncIterator[Piece], config: UploadConfig) -> AsyncIterator[Upload]:
    """Store the chunks as they come; the file lives as long as the context."""
    upload = Upload(config)
    upload.start(chunks)
    try:
        yield upload
    finally:
        await upload.stop()
