"""Anonymous files for videos: in memory up to a limit, then on disk."""

import asyncio
import errno
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tubelet.service.config.config import UploadConfig
from tubelet.service.errors import StorageFull


class Arrival:
    """Wakes all who wait for more bytes of a file."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Wake all that wait."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, bringer: "asyncio.Task[None]") -> None:
        """Wait for ``notify`` or for the end of the task ``bringer``; raise its error if it failed."""
        grown = asyncio.ensure_future(self._next.wait())
        try:
            await asyncio.wait((grown, bringer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            grown.cancel()
        if bringer.done():
            bringer.result()


Piece = bytes | memoryview

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

logger = logging.getLogger(__name__)


class AnonymousFile:
    """A file without a name, in memory up to ``config.memory_bytes``, then on disk.

    ``fd`` changes when the file moves to disk. Bytes that were never written take no room.
    """

    def __init__(self, config: UploadConfig) -> None:
        self.fd = os.memfd_create("video", os.MFD_CLOEXEC)
        self._config = config
        self._written_bytes = 0
        self._in_memory = True
        self._moving = asyncio.Lock()

    def stays_in_memory(self, more_bytes: int) -> bool:
        """Whether ``more_bytes`` fit into memory, so that they are written without a thread."""
        return self._in_memory and self._written_bytes + more_bytes <= self._config.memory_bytes

    async def write(self, offset: int, pieces: Sequence[Piece]) -> None:
        """Write ``pieces`` one after another at ``offset``; no byte is ever written twice.

        Raises:
            StorageFull: the disk is full.
        """
        async with self._moving:
            with self._full_disk_named():
                await self._write(offset, pieces)

    async def _write(self, offset: int, pieces: Sequence[Piece]) -> None:
        """Write to memory while that has room; then move the file to disk, and write on a thread."""
        count = sum(map(len, pieces))
        if self.stays_in_memory(count):
            _write_all(self.fd, offset, pieces)
        else:
            if self._in_memory:
                memory_fd = self.fd
                self.fd = _copy_to_disk(memory_fd, self._config)
                os.close(memory_fd)
                self._in_memory = False
            await _finish_in_thread(self.fd, offset, pieces)
        self._written_bytes += count

    @contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        """Raise StorageFull for a full disk, quota or file size limit; other errors as they are."""
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            folder = self._config.directory or tempfile.gettempdir()
            logger.warning("no room in %s for a video: %s", folder, error.strerror)
            raise StorageFull("the server has no room to store the video; try again later") from error

    def close(self) -> None:
        """Close the file; no write may be in progress."""
        os.close(self.fd)


def _copy_to_disk(memory_fd: int, config: UploadConfig) -> int:
    """Copy the bytes of ``memory_fd`` to an unnamed file on disk; return its descriptor."""
    with tempfile.TemporaryFile(dir=config.directory) as file:
        for start, end in _written(memory_fd):
            os.lseek(file.fileno(), start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(file.fileno(), memory_fd, start, end - start)
        return os.dup(file.fileno())


def _written(fd: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges [start, end) of ``fd`` that were written, rounded to pages."""
    size, end = os.fstat(fd).st_size, 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # only a hole follows
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


async def _finish_in_thread(fd: int, offset: int, pieces: Sequence[Piece]) -> None:
    """Write in a thread, and let a cancellation wait for it: ``fd`` must not be closed during a write."""
    writing = asyncio.ensure_future(asyncio.to_thread(_write_all, fd, offset, pieces))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        raise


def _write_all(fd: int, offset: int, pieces: Sequence[Piece]) -> None:
    """Write ``pieces`` one after another at ``offset``; blocks."""
    for piece in pieces:
        view = memoryview(piece)
        while view:
            written = os.pwrite(fd, view, offset)
            offset, view = offset + written, view[written:]
