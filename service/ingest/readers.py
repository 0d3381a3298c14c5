"""The interfaces of files behind URIs: read by ranges, or only from the start."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol


class Ranged(Protocol):
    """A remote file of which any range can be read."""

    size_bytes: int
    etag: str  # tells versions of the file apart; empty if nothing does

    def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """Yield the bytes of [start, end) in order, in at least one piece; they may end early.

        Raises:
            FetchFailed: a retry may succeed.
            UriNotFound, UriChanged: the file is gone, or another one took its place.
        """
        ...


@dataclass(frozen=True, slots=True)
class Streamed:
    """A remote file that can be read once, from start to end; ``chunks`` may raise FetchFailed."""

    chunks: AsyncIterator[bytes]
    etag: str
