"""The files of a batch's destination in an object store, S3 or Google Cloud Storage, through fsspec.

Endpoints and credentials are those of ``fetch.options``, or of the usual environment variables. There is no
rename: a file is created by a conditional put.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep

from tubelet.service.batch.filesystems import open_filesystem
from tubelet.service.config.config import FetchConfig
from tubelet.service.types.uri import Uri

_ATTEMPTS = 5  # for a file that another writer is about to create
_PAUSE_S = 0.2
_CONFLICT, _EXISTS = 409, 412  # HTTP statuses of conditional puts


class ObjectStore:
    """A prefix in a bucket; a ``Store``."""

    def __init__(self, uri: Uri, config: FetchConfig) -> None:
        self._uri = uri
        self._root = f"{uri.host}{uri.key}".rstrip("/")
        self._files = open_filesystem(uri, config)

    @property
    def name(self) -> str:
        return str(self._uri).rstrip("/")

    def read(self, name: str) -> bytes:
        with self._explained("read", name):
            return self._files.cat_file(f"{self._root}/{name}")

    def create(self, name: str, content: bytes) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                with self._explained("write", name):
                    self._files.pipe_file(f"{self._root}/{name}", content, mode="create")
                return
            except OSError as error:
                if _status(error.__cause__) != _CONFLICT or attempt == _ATTEMPTS - 1:
                    raise
                sleep(_PAUSE_S)

    def put(self, name: str, content: bytes) -> None:
        with self._explained("write", name):
            self._files.pipe_file(f"{self._root}/{name}", content)

    def names(self, folder: str = "") -> Iterator[str]:
        with self._explained("list", folder):
            found = self._files.find(f"{self._root}/{folder}".rstrip("/"))
        return (path.removeprefix(f"{self._root}/") for path in sorted(found))

    def delete(self, name: str) -> None:
        try:
            with self._explained("remove", name):
                self._files.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            pass

    @contextmanager
    def _explained(self, what: str, name: str) -> Iterator[None]:
        """Raise errors of the libraries as OSError with a sentence.

        Raises:
            FileNotFoundError: there is no such object to be read.
            FileExistsError: there is one.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, FileExistsError) or (
                isinstance(error, FileNotFoundError) and what != "write"
            ):
                raise
            if _status(error) == _EXISTS:
                raise FileExistsError(name) from error
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OSError(f"cannot {what} {self.name}/{name}: {said}") from error


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error of S3 comes from."""
    while error is not None:
        if response := getattr(error, "response", None):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        error = error.__cause__
    return None
