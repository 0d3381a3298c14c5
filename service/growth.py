"""Waiting for more of what a task brings bit by bit."""

import asyncio


class Growth:
    """``grew`` wakes everybody who waits for ``more``."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def grew(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def more(self, bringer: "asyncio.Task[None]") -> None:
        """Wait until there is more, or until the task ends, and raise what it failed with."""
        grown = asyncio.ensure_future(self._next.wait())
        try:
            await asyncio.wait((grown, bringer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            grown.cancel()
        if bringer.done():
            bringer.result()
