"""Chunks -> a bounded, seekable, anonymous file: in memory up to a limit, then on disk."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from service.config import UploadConfig
from service.errors import EmptyUpload, UploadTooLarge


class Upload:
    """A video's bytes as they come in: a ``service.values.VideoFile``.

    ``fd`` has no name in any file system. It becomes another when the file moves to disk.
    """

    def __init__(self, config: UploadConfig) -> None:
        self.fd = os.memfd_create("upload", os.MFD_CLOEXEC)
        self.size_bytes: int | None = None  # None: more may come
        self._config = config
        self._arrived = 0
        self._in_memory = True
        self._grown = asyncio.Event()  # a new one after each chunk
        self._filling: asyncio.Task[None]

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        """Wait for the byte at ``start``, or for the end of the file: -> [start, end) of what is there.

        Raises:
            UploadTooLarge, EmptyUpload, or whatever ended the chunks.
        """
        while self._arrived <= start and self.size_bytes is None:
            grown = asyncio.ensure_future(self._grown.wait())
            await asyncio.wait((grown, self._filling), return_when=asyncio.FIRST_COMPLETED)
            grown.cancel()
            if self._filling.done():
                self._filling.result()
        return 0, self._arrived

    async def whole(self) -> int:
        """Wait for all of it: its size in bytes.

        Raises:
            UploadTooLarge, EmptyUpload, or whatever ended the chunks.
        """
        await asyncio.shield(self._filling)
        return self._arrived

    def start(self, chunks: AsyncIterator[bytes]) -> None:
        self._filling = asyncio.create_task(self._fill(chunks))

    async def stop(self) -> None:
        self._filling.cancel()
        await asyncio.wait((self._filling,))
        if not self._filling.cancelled():
            self._filling.exception()  # whoever wanted to know has asked
        os.close(self.fd)

    async def _fill(self, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            size = self._arrived + len(chunk)
            if size > self._config.max_bytes:
                raise UploadTooLarge(
                    f"the upload is larger than the limit of {self._config.max_bytes} bytes",
                    limit=self._config.max_bytes,
                    value=f">={size}",
                )
            await self._write(chunk)
            self._arrived = size
            self._grown.set()
            self._grown = asyncio.Event()
        if self._arrived == 0:
            raise EmptyUpload("the upload is empty: no chunk carried a byte")
        self.size_bytes = self._arrived

    async def _write(self, chunk: bytes) -> None:
        if self._in_memory and self._arrived + len(chunk) > self._config.memory_bytes:
            memory_fd = self.fd
            self.fd = _copy_to_disk(memory_fd, self._config)
            os.close(memory_fd)
            self._in_memory = False
        if self._in_memory:
            _write_all(self.fd, chunk)
        else:
            await _finish_in_thread(_write_all, self.fd, chunk)


@asynccontextmanager
async def receive(chunks: AsyncIterator[bytes], config: UploadConfig) -> AsyncIterator[Upload]:
    """Store the chunks as they come; the file lives as long as the context."""
    upload = Upload(config)
    upload.start(chunks)
    try:
        yield upload
    finally:
        await upload.stop()


def _copy_to_disk(memory_fd: int, config: UploadConfig) -> int:
    """Copy what came so far to an unnamed file on disk, and return that file's descriptor."""
    size = os.lseek(memory_fd, 0, os.SEEK_END)
    with tempfile.TemporaryFile(dir=config.directory) as file:
        offset = 0
        while offset < size:
            offset += os.sendfile(file.fileno(), memory_fd, offset, size - offset)
        return os.dup(file.fileno())


async def _finish_in_thread(write: Callable[[int, bytes], None], fd: int, chunk: bytes) -> None:
    """Write in a thread; a cancellation waits for it, since ``fd`` must not be closed under a write."""
    writing = asyncio.ensure_future(asyncio.to_thread(write, fd, chunk))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        raise


def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
