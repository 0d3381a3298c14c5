"""Anonymous files for the bytes of videos."""

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

_DIRECT_BYTES = 8 << 20  # of each file
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

logger = logging.getLogger(__name__)


class AnonymousFile:
    """A file without a name in ``config.directory``. Bytes that were never written take no room.

    The event loop itself writes the first ``_DIRECT_BYTES``: they only reach the page cache, unless the disk
    is far behind. A thread for each write raises the processor time of an upload of 1 MiB by 14 %.

    Raises:
        StorageFull: the disk has no room for another file.
    """

    def __init__(self, config: UploadConfig) -> None:
        self._config = config
        self._written_bytes = 0
        with self._full_disk_named(), tempfile.TemporaryFile(dir=config.directory) as file:
            self.fd = os.dup(file.fileno())

    def is_written_directly(self, more_bytes: int) -> bool:
        """Whether ``more_bytes`` are written without a thread."""
        return self._written_bytes + more_bytes <= _DIRECT_BYTES

    async def write(self, offset: int, pieces: Sequence[Piece]) -> None:
        """Write ``pieces`` one after another at ``offset``.

        Raises:
            StorageFull: the disk is full.
        """
        count = sum(map(len, pieces))
        with self._full_disk_named():
            if self.is_written_directly(count):
                _write_all(self.fd, offset, pieces)
            else:
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
