"""Opens the file of a video, which a client uploads or which is fetched from a URI."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from blake3 import blake3

from tubelet.service.config.config import Config
from tubelet.service.ingest.anonymous_file import Piece
from tubelet.service.ingest.fetcher import Fetcher
from tubelet.service.ingest.local_file import LocalVideo
from tubelet.service.ingest.ranged_download import RangedDownload, fetch
from tubelet.service.ingest.readers import Ranged, Streamed
from tubelet.service.ingest.upload import Upload, receive
from tubelet.service.metrics import Arrived, RequestTimings
from tubelet.service.types.meter import Meter
from tubelet.service.types.uri import Uri
from tubelet.service.types.video import VideoFile

Video = AsyncIterator[Piece] | Uri
"""The chunks of an upload, or the URI of a video."""

Arrival = Literal["upload", "fetch"]
"""The stage in which the bytes of a video arrive."""


class Ingest:
    """Opens the files of videos, and counts their bytes and times."""

    def __init__(self, config: Config, fetcher: Fetcher) -> None:
        self._config = config
        self._fetcher = fetcher

    def check(self, video: Video) -> None:
        """Check that ``video`` may be read, before it is opened.

        Raises:
            UriNotAllowed: the URI is not covered by ``fetch.allow``.
        """
        if isinstance(video, Uri):
            self._fetcher.check(video)

    @asynccontextmanager
    async def open(self, video: Video, timings: RequestTimings, meter: Meter) -> AsyncIterator[VideoFile]:
        """Open the file of ``video``, which exists as long as the context; its bytes may still be arriving.

        ``meter`` counts those that are uploaded or fetched.

        Raises:
            UriNotAllowed, UriNotFound, FetchFailed, EmptyUpload, StorageFull, QuotaExceeded.
        """
        if not isinstance(video, Uri):
            chunks = _digested(_counted(video, meter, timings.arrived), timings.arrived)
            async with self._received(chunks, "upload", timings) as file:
                yield file
            return
        async with self._fetcher.open(video, meter.identity) as opened:
            match opened:
                case LocalVideo():
                    timings.arrived.bytes = opened.size_bytes
                    yield opened
                case Streamed(chunks, etag):
                    timings.arrived.etag = etag
                    counted = _counted(chunks, meter, timings.arrived)
                    async with self._received(counted, "fetch", timings) as file:
                        yield file
                case _:
                    timings.arrived.etag = opened.etag
                    async with self._fetched(opened, timings, meter) as file:
                        yield file

    @asynccontextmanager
    async def _received(
        self, chunks: AsyncIterator[Piece], stage: Arrival, timings: RequestTimings
    ) -> AsyncIterator[Upload]:
        """Receive chunks in order, and measure how long they take; decoding may run at the same time."""
        async with receive(chunks, self._config.upload) as file:
            coming = asyncio.create_task(_time_arrival(file, stage, timings))
            try:
                yield file
                await coming
            finally:
                coming.cancel()
                await asyncio.wait([coming])
                _count_bytes(stage, timings.arrived.bytes, timings)

    @asynccontextmanager
    async def _fetched(
        self, remote: Ranged, timings: RequestTimings, meter: Meter
    ) -> AsyncIterator[RangedDownload]:
        """Download ranges on demand, and measure how long readers wait for them."""
        async with fetch(remote, self._config.fetch, self._config.upload, meter.count_bytes) as file:
            try:
                yield file
            finally:
                timings.observe("fetch", file.waited_s)
                _count_bytes("fetch", file.fetched_bytes, timings)


async def _counted(chunks: AsyncIterator[Piece], meter: Meter, arrived: Arrived) -> AsyncIterator[Piece]:
    """Yield ``chunks``, which ``arrived`` and ``meter`` count; raises as the latter does."""
    async for chunk in chunks:
        arrived.bytes += len(chunk)
        meter.count_bytes(len(chunk))
        yield chunk


async def _digested(chunks: AsyncIterator[Piece], arrived: Arrived) -> AsyncIterator[Piece]:
    """Yield the chunks of an upload; after the last one, ``arrived`` has their digest."""
    digest = blake3()
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk
    arrived.digest = f"blake3:{digest.hexdigest()}"


async def _time_arrival(file: Upload, stage: Arrival, timings: RequestTimings) -> None:
    """Measure how long the whole file takes to arrive."""
    with timings.time(stage):
        await file.whole()


def _count_bytes(stage: Arrival, count: int, timings: RequestTimings) -> None:
    """Count the bytes of a video; the answer says how many were fetched."""
    timings.arrived.bytes = count
    if stage == "fetch":
        timings.fetched_bytes = count
        timings.metrics.fetched_bytes.inc(count)
    else:
        timings.metrics.uploaded_bytes.inc(count)
