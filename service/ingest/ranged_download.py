"""Downloads of remote files by ranges, on demand, into a file with holes."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

from tubelet.service.config.config import FetchConfig, UploadConfig
from tubelet.service.errors import FetchFailed, UploadTooLarge
from tubelet.service.ingest.anonymous_file import AnonymousFile, Arrival
from tubelet.service.ingest.readers import Ranged
from tubelet.service.types.byte_ranges import ByteRanges
from tubelet.service.types.meter import UNMETERED

_MAX_READINGS = 16  # that are remembered
_PAUSE_S = 0.1  # before the second attempt; doubled before each further one

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _RangeFetch:
    """A range that is being fetched; the bytes before ``offset`` have arrived."""

    offset: int
    end: int
    task: "asyncio.Task[None]" = field(init=False)


@dataclass(slots=True, eq=False)
class _Reading:
    """A sequential reading, which began at ``start`` and goes on at ``next``."""

    start: int
    next: int


class RangedDownload:
    """A remote file whose ranges are fetched when they are waited for; a ``VideoFile`` of known size.

    During sequential reading, of which several may go on at a time, as many bytes are fetched ahead as were
    read since its start, up to ``read_ahead_bytes``. So at most half of all bytes are fetched in vain.
    ``count_bytes`` is called for each piece that arrives; an error of it ends the download.
    """

    def __init__(
        self, remote: Ranged, config: FetchConfig, upload: UploadConfig, count_bytes: Callable[[int], None]
    ) -> None:
        self.size_bytes = remote.size_bytes
        self.fetched_bytes = 0  # bytes received, failed attempts included
        self.waited_s = 0.0
        self._remote = remote
        self._config = config
        self._count_bytes = count_bytes
        self._max_bytes = upload.max_bytes
        self._storage = AnonymousFile(upload)
        self._there = ByteRanges()
        self._runs: list[_RangeFetch] = []
        self._arrival = Arrival()
        self._readings = deque([_Reading(0, 0)], _MAX_READINGS)

    @property
    def fd(self) -> int:
        return self._storage.fd

    @property
    def is_whole(self) -> bool:
        return self._there.contiguous_end(0) == self.size_bytes

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        """Fetch what is missing of [start, end); return the range from ``start`` that has arrived.

        Raises:
            FetchFailed, UriNotFound, UriChanged, UploadTooLarge, StorageFull, or an error of ``count_bytes``.
            ValueError: the file has no byte at ``start``.
        """
        if not 0 <= start < self.size_bytes:
            raise ValueError(f"no byte {start} in a file of {self.size_bytes} bytes")
        began = monotonic()
        try:
            reading = self._reading_at(start)
            end = min(end, self.size_bytes)
            self._fetch_ahead(start, end, start - reading.start)
            while (missing := self._there.contiguous_end(start)) < end:
                await self._progress(missing, end, missing - reading.start)
        finally:
            self.waited_s += monotonic() - began
        reading.next = self._there.contiguous_end(start)
        return start, reading.next

    async def whole(self) -> int:
        """Fetch all bytes; return the size of the file in bytes."""
        while (there := self._there.contiguous_end(0)) < self.size_bytes:
            await self.wait(there, self.size_bytes)
        return self.size_bytes

    def start(self) -> None:
        """Start to fetch the first bytes, which are always needed."""
        self._fetch_ahead(0, 1, 0)

    async def stop(self) -> None:
        """Cancel all downloads and close the file."""
        tasks = [run.task for run in self._runs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._storage.close()

    def _reading_at(self, start: int) -> _Reading:
        """Return the reading that goes on at ``start``, or a new one."""
        for reading in reversed(self._readings):
            if reading.next <= start <= reading.next + self._config.block_bytes:
                return reading
        self._readings.append(_Reading(start, start))
        return self._readings[-1]

    def _fetch_ahead(self, start: int, end: int, read: int) -> None:
        """Fetch what is not yet scheduled of [start, end), and at least half of the bytes to read ahead.

        ``read`` is the number of bytes that were read in a row before ``start``.
        """
        ahead = min(read, self._config.read_ahead_bytes)
        frontier = self._scheduled_end(start)
        if frontier < max(end, min(start + ahead // 2, self.size_bytes)):
            least = min(max(frontier + self._config.block_bytes, end), self.size_bytes)
            self._start_range(frontier, least, min(max(least, start + ahead), self.size_bytes))

    def _scheduled_end(self, offset: int) -> int:
        """Return the end of the bytes from ``offset`` that have arrived or are being fetched."""
        while True:
            there = self._there.contiguous_end(offset)
            there = max([run.end for run in self._runs if run.offset <= there < run.end], default=there)
            if there == offset:
                return offset
            offset = there

    def _start_range(self, start: int, min_end: int, max_end: int) -> None:
        """Start to fetch from ``start`` to ``max_end``, or to ``min_end`` at least if the limit is near."""
        on_its_way = sum(run.end - run.offset for run in self._runs)
        left = self._max_bytes - self.fetched_bytes - on_its_way
        if min_end - start > left:
            raise UploadTooLarge(
                f"more than the limit of {self._max_bytes} bytes of the video would have to be fetched",
                limit=self._max_bytes,
                value=f">={self._max_bytes - left + min_end - start}",
            )
        after = [run.offset for run in self._runs if run.offset > start]
        after += [there] if (there := self._there.next_start(start)) is not None else []
        run = _RangeFetch(start, min([start + left, max_end, *after]))
        self._runs.append(run)
        run.task = asyncio.create_task(self._fetch(run))
        run.task.add_done_callback(_ignore_unawaited_error)

    async def _progress(self, missing: int, end: int, read: int) -> None:
        """Wait for the next piece of the range that contains the byte ``missing``."""
        run = next((run for run in self._runs if run.offset <= missing < run.end), None)
        if run is None:
            self._fetch_ahead(missing, end, read)
            return
        await self._arrival.wait(run.task)

    async def _fetch(self, run: _RangeFetch) -> None:
        """Fetch a range; a failed attempt is continued after a pause, ``config.attempts`` times in all."""
        failures = 0
        try:
            while run.offset < run.end:
                try:
                    await self._read_on(run)
                except FetchFailed as error:
                    failures += 1
                    if failures == self._config.attempts:
                        raise
                    _log.info("attempt %d at bytes %d to %d: %s", failures, run.offset, run.end, error)
                    await asyncio.sleep(_PAUSE_S * 2 ** (failures - 1))
        finally:
            self._runs.remove(run)

    async def _read_on(self, run: _RangeFetch) -> None:
        """Request the rest of a range, and store each piece as it arrives."""
        async with aclosing(self._remote.read(run.offset, run.end)) as pieces:
            async for piece in pieces:
                self.fetched_bytes += len(piece)
                self._count_bytes(len(piece))
                await self._storage.write(run.offset, [piece])
                self._there.add(run.offset, run.offset + len(piece))
                run.offset += len(piece)
                self._arrival.notify()


@asynccontextmanager
async def fetch(
    remote: Ranged,
    config: FetchConfig,
    upload: UploadConfig,
    count_bytes: Callable[[int], None] = UNMETERED.count_bytes,
) -> AsyncIterator[RangedDownload]:
    """Open ``remote`` for downloads; the file exists as long as the context.

    Raises:
        UploadTooLarge: the limit is smaller than the first bytes to fetch.
        StorageFull: the disk has no room for another file.
    """
    video = RangedDownload(remote, config, upload, count_bytes)
    try:
        video.start()
        yield video
    finally:
        await video.stop()


def _ignore_unawaited_error(task: "asyncio.Task[None]") -> None:
    """Mark the error of a range that nobody waited for as seen; who needs the range fetches it again."""
    if not task.cancelled():
        task.exception()
