"""Opens files of this machine for ``file:`` URIs; they are read in place, not copied."""

import os
import stat
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tubelet.service.errors import EmptyUpload, UriNotAllowed, UriNotFound
from tubelet.service.types.uri import Prefix, Uri


@dataclass(frozen=True, slots=True)
class LocalVideo:
    """A complete file on this machine; a ``VideoFile``."""

    fd: int
    size_bytes: int
    is_whole: bool = True

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        return 0, self.size_bytes

    async def whole(self) -> int:
        return self.size_bytes


class LocalFiles:
    """Opens files in the folders of ``prefixes``; links are followed, but must not lead out of them."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._folders = [
            os.path.realpath(prefix.uri.local_path) for prefix in prefixes if prefix.uri.scheme == "file"
        ]

    @asynccontextmanager
    async def open(self, uri: Uri) -> AsyncIterator[LocalVideo]:
        """Open the file of ``uri`` for reading.

        Raises:
            UriNotFound: there is no such file, or it cannot be read.
            UriNotAllowed: a link leads out of the allowed folders.
            EmptyUpload: the file has no bytes.
        """
        try:
            fd = self._open(uri.local_path)
        except OSError as error:
            raise UriNotFound("there is no such file, or this server may not read it") from error
        try:
            size_bytes = os.fstat(fd).st_size
            if size_bytes == 0:
                raise EmptyUpload("the video is empty: the file has no bytes")
            yield LocalVideo(fd, size_bytes)
        finally:
            os.close(fd)

    def _open(self, path: str) -> int:
        """Open ``path``, and only the file that was checked, even if the path changes meanwhile."""
        path_fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            real = os.readlink(f"/proc/self/fd/{path_fd}")
            if not any(
                real == folder or real.startswith(folder.rstrip("/") + "/") for folder in self._folders
            ):
                raise UriNotAllowed("the file is outside the folders that this server may read", field="uri")
            if not stat.S_ISREG(os.fstat(path_fd).st_mode):
                raise FileNotFoundError(path)
            return os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(path_fd)
