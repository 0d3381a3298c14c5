"""Chunks -> a bounded, seekable, anonymous file: in memory up to a limit, then on disk."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.config import UploadConfig
from service.errors import EmptyUpload, UploadTooLarge


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A whole upload. ``fd`` has no name in any file system and is closed by who received it."""

    fd: int
    size_bytes: int


@asynccontextmanager
async def receive(chunks: AsyncIterator[bytes], config: UploadConfig) -> AsyncIterator[UploadedFile]:
    """Store all chunks; the file lives as long as the context.

    Raises:
        UploadTooLarge: as soon as the limit is passed, without reading on.
        EmptyUpload: no byte came.
    """
    fd = os.memfd_create("upload", os.MFD_CLOEXEC)
    try:
        size, in_memory = 0, True
        async for chunk in chunks:
            size += len(chunk)
            if size > config.max_bytes:
                raise UploadTooLarge(
                    f"the upload is larger than the limit of {config.max_bytes} bytes",
                    limit=config.max_bytes,
                    value=f">={size}",
                )
            if in_memory and size > config.memory_bytes:
                disk_fd = _copy_to_disk(fd, config)
                os.close(fd)
                fd, in_memory = disk_fd, False
            if in_memory:
                _write_all(fd, chunk)
            else:
                await _finish_in_thread(_write_all, fd, chunk)
        if size == 0:
            raise EmptyUpload("the upload is empty: no chunk carried a byte")
        yield UploadedFile(fd, size)
    finally:
        os.close(fd)


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
