"""The files of a batch's destination, by names with slashes: in a folder of this machine.

``remote_store.py`` has the same for object stores.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from tubelet.service.config.config import FetchConfig
from tubelet.service.types.uri import is_uri, parse_uri

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class UnusableDestination(ValueError):
    """The destination is a URI that cannot be written."""


class Store(Protocol):
    """Files that appear as a whole or not at all, and that one of several writers can create."""

    @property
    def name(self) -> str:
        """The destination, as the user wrote it."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """
        ...

    def create(self, name: str, content: bytes) -> None:
        """Write a file that is not there yet; of several writers, one succeeds.

        Raises:
            FileExistsError: it is there.
            OSError: it cannot be written.
        """
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write a file; one that is there is replaced.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def names(self, folder: str = "") -> Iterator[str]:
        """Yield the names of all files in a folder, at any depth, in order; none if there is no folder."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...


class FolderStore:
    """A folder of this machine; what is written survives a crash of the machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        return str(self._folder)

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def create(self, name: str, content: bytes) -> None:
        path = self._folder / name
        part = self._written(path, content)
        try:
            os.link(part, path)  # unlike a rename, it fails if the name is taken
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise OSError(
                    f"cannot write {path}: the file system has no hard links; name another --out"
                ) from error
            raise
        finally:
            part.unlink()
        _sync(path.parent)

    def put(self, name: str, content: bytes) -> None:
        path = self._folder / name
        part = self._written(path, content)
        part.replace(path)
        _sync(path.parent)

    def names(self, folder: str = "") -> Iterator[str]:
        for top, folders, files in os.walk(self._folder / folder):
            folders.sort()
            for file in sorted(files):
                yield os.path.relpath(os.path.join(top, file), self._folder)

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def _written(self, path: Path, content: bytes) -> Path:
        """Write the content beside ``path`` under another name, which is returned."""
        part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise OSError(f"cannot write {path}: {error.strerror}") from error
        return part


def open_store(dest: str, config: FetchConfig) -> Store:
    """Open a destination: a folder, or a prefix in S3 or Google Cloud Storage.

    Raises:
        UnusableDestination: it is another URI.
        MissingExtra: it needs a library that is not installed.
    """
    if not is_uri(dest):
        return FolderStore(Path(dest))
    try:
        uri = parse_uri(dest)
    except ValueError as error:
        raise UnusableDestination(f"{dest}: {error}") from None
    if uri.scheme == "file":
        return FolderStore(Path(uri.local_path))
    if uri.scheme not in ("s3", "gs"):
        raise UnusableDestination(
            f"{dest} cannot be written; name a folder, s3://BUCKET/PATH or gs://BUCKET/PATH"
        )
    from tubelet.service.batch.destination.remote_store import ObjectStore

    return ObjectStore(uri, config)


def _sync(folder: Path) -> None:
    """Let the names in a folder survive a crash of the machine."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
