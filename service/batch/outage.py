"""Outages of where videos are: failures that are not the videos' fault are not written as rows.

Credentials that expire, or a network that fails, would turn all further videos into failures.
"""

from collections.abc import Awaitable, Callable

from tubelet.service.batch.rows import VideoRows
from tubelet.service.batch.source.items import Item
from tubelet.service.errors import FetchFailed, UriNotFound

_ROW = 20  # failures without an answer between them, after which the run asks whether it is an outage
_REASONS = (FetchFailed.reason, UriNotFound.reason)


class SourceOutage(Exception):
    """Videos at URIs cannot be read any more, not even one that could before."""


class OutageGuard:
    """Holds back failures to fetch until a video is fetched again; ``classify`` makes rows."""

    def __init__(self, classify: Callable[[Item], Awaitable[VideoRows]]) -> None:
        self._classify = classify
        self._held: list[VideoRows] = []
        self._last_read: Item | None = None

    async def passed(self, item: Item, rows: VideoRows) -> list[VideoRows]:
        """Return the rows that may be written now that ``item`` has ended with ``rows``.

        Raises:
            SourceOutage: what is held back comes of an outage; it is to be asked again.
        """
        if item.uri.startswith("file:") or item.problem is not None:
            return [rows]
        if rows.failure is None or rows.failure.reason not in _REASONS:
            self._last_read = item if rows.failure is None else self._last_read
            return [*self.rest(), rows]
        self._held.append(rows)
        if len(self._held) < _ROW:
            return []
        return await self._checked()

    async def end(self) -> list[VideoRows]:
        """Return what is held back after the last video, and may be written now.

        Raises:
            SourceOutage: it comes of an outage, as a video that could be read can be read no more.
        """
        if self._held and self._last_read is not None:
            return await self._checked()
        return self.rest()

    def rest(self) -> list[VideoRows]:
        """Return what is held back, which is to be written now."""
        held, self._held = self._held, []
        return held

    async def _checked(self) -> list[VideoRows]:
        """Return what is held back if a video that could be read can be read again.

        Nothing is returned if other calls have handed it on meanwhile: a video was read, or an outage found.

        Raises:
            SourceOutage: it cannot be read any more.
        """
        held = self._held
        failure = held[-1].failure
        assert failure is not None
        if self._last_read is None:
            is_outage = failure.reason == FetchFailed.reason
        else:
            is_outage = (await self._classify(self._last_read)).failure is not None
        if self._held is not held:
            return []
        if is_outage:
            self._held = []
            raise SourceOutage(
                f"the last {len(held)} videos at URIs could not be read: {failure.message} "
                f"({failure.reason}); check network and credentials, then continue with --resume: "
                "they have no rows yet"
            )
        return self.rest()
