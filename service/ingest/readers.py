"""What is behind a URI, as the rest of this stage sees it."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol


class Ranged(Protocol):
    """A file elsewhere, any part of which can be read."""

    size_bytes: int

    def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """Pieces of [start, end) from the start on: at least one, though they may end early.

        Raises:
            FetchFailed: which may pass.
            UriNotFound, UriChanged: it is not, or no longer, what was opened.
        """
        ...


@dataclass(frozen=True, slots=True)
class Streamed:
    """A file elsewhere that comes from the front, once; ``chunks`` may raise FetchFailed."""

    chunks: AsyncIterator[bytes]
