"""Opens objects in S3 and in stores with the same interface."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from s3fs import S3FileSystem

from tubelet.service.config.config import FetchConfig
from tubelet.service.errors import FetchFailed
from tubelet.service.ingest.object_store import Open, StoredObject, info, options
from tubelet.service.types.uri import Uri


@asynccontextmanager
async def s3_objects(config: FetchConfig) -> AsyncIterator[Open]:
    """Yield a function that opens the objects of ``s3://`` URIs."""
    store = S3FileSystem(**options("s3", config))
    client = await store.set_session()

    @asynccontextmanager
    async def open_object(uri: Uri) -> AsyncIterator[StoredObject]:
        """Open the present version of the object at ``uri``."""
        found = await info(store, uri, config.timeout_s)
        version = {"Bucket": uri.host, "Key": uri.key.removeprefix("/"), "IfMatch": found["ETag"]}

        async def part(start: int, end: int) -> bytes:
            """Read the bytes [start, end) of this version."""
            # store._cat_file cannot ask for one version of an object.
            answer = await store._call_s3("get_object", **version, Range=f"bytes={start}-{end - 1}")
            async with answer["Body"] as body:
                if answer["ContentLength"] != end - start:
                    raise FetchFailed("the object store did not send the requested range")
                return await body.read()

        yield StoredObject(uri, found["size"], found["ETag"], part, config.timeout_s)

    try:
        yield open_object
    finally:
        await client.close()
