"""The common part of objects in S3 and in Google Cloud Storage, read through fsspec.

Endpoints and credentials come from ``fetch.options``, or from the usual environment variables (AWS_PROFILE,
GOOGLE_APPLICATION_CREDENTIALS, ...).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Literal

from tubelet.service.config.config import FetchConfig
from tubelet.service.errors import EmptyUpload, FetchFailed, UriChanged, UriNotFound
from tubelet.service.types.uri import Uri

CHANGED = "the object at the URI was replaced while it was read; try again"

_log = logging.getLogger(__name__)


class StoredObject:
    """One version of an object, a ``Ranged``; ``part`` reads its bytes [start, end)."""

    def __init__(
        self,
        uri: Uri,
        size_bytes: int,
        etag: str,
        part: Callable[[int, int], Awaitable[bytes]],
        timeout_s: float,
    ) -> None:
        self.size_bytes = size_bytes
        self.etag = etag
        self._uri = uri
        self._part = part
        self._timeout_s = timeout_s

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        with explained(self._uri):
            async with asyncio.timeout(self._timeout_s):
                data = await self._part(start, end)
        if len(data) != end - start:
            raise FetchFailed(f"the object store sent {len(data)} bytes instead of {end - start}")
        yield data


Open = Callable[[Uri], AbstractAsyncContextManager[StoredObject]]


def options(scheme: Literal["s3", "gs"], config: FetchConfig) -> dict[str, Any]:
    """Return the options of fsspec's filesystem for ``scheme``, those of the configuration included."""
    own = {"asynchronous": True, "loop": asyncio.get_running_loop()}
    kept_between_requests = {"use_listings_cache": False, "skip_instance_cache": True}
    return config.options.get(scheme, {}) | own | kept_between_requests


async def info(store: Any, uri: Uri, timeout_s: float) -> dict[str, Any]:
    """Return the store's metadata of the object at ``uri``.

    Raises:
        UriNotFound, UriChanged, FetchFailed.
        EmptyUpload: the object has no bytes.
    """
    with explained(uri):
        async with asyncio.timeout(timeout_s):
            found = await store._info(path_of(uri))
    if found["type"] != "file":
        raise UriNotFound("the URI is that of a folder, not of a file")
    if found["size"] == 0:
        raise EmptyUpload("the video is empty: the object has no bytes")
    return found


def path_of(uri: Uri) -> str:
    """Return the path of an object as fsspec writes it: BUCKET/KEY."""
    return f"{uri.host}{uri.key}"


@contextmanager
def explained(uri: Uri) -> Iterator[None]:
    """Raise exceptions of fsspec as errors for the client; their details go only to the log."""
    try:
        yield
    except (FetchFailed, UriChanged):
        raise
    except Exception as error:
        _log.info("%s: %r", uri, error)
        cause = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {})
        if cause.get("HTTPStatusCode") == 412:
            raise UriChanged(CHANGED) from error
        if isinstance(error, FileNotFoundError | PermissionError) or "Forbidden" in str(error):
            raise UriNotFound("there is no such file, or this server may not read it") from error
        raise FetchFailed("the object store cannot be reached, or does not answer as it should") from error
