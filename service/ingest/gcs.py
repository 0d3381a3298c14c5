"""Opens objects in Google Cloud Storage."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gcsfs.core import GCSFileSystem  # the HTTP client: the other one first asks about each bucket by gRPC

from tubelet.service.config.config import FetchConfig
from tubelet.service.errors import UriChanged
from tubelet.service.ingest.object_store import CHANGED, Open, StoredObject, info, options, path_of
from tubelet.service.types.uri import Uri


@asynccontextmanager
async def gs_objects(config: FetchConfig) -> AsyncIterator[Open]:
    """Yield a function that opens the objects of ``gs://`` URIs."""
    store = GCSFileSystem(**options("gs", config))
    session = await store._set_session()

    @asynccontextmanager
    async def open_object(uri: Uri) -> AsyncIterator[StoredObject]:
        """Open the present version of the object at ``uri``."""
        found = await info(store, uri, config.timeout_s)

        async def part(start: int, end: int) -> Any:
            """Read the bytes [start, end) of this version."""
            try:
                return await store._cat_file(path_of(uri), start, end, generation=found["generation"])
            except FileNotFoundError as error:  # this generation of the object is gone
                raise UriChanged(CHANGED) from error

        yield StoredObject(uri, found["size"], str(found["generation"]), part, config.timeout_s)

    try:
        yield open_object
    finally:
        await session.close()
