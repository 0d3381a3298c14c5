"""Lines at the bottom of a terminal that are redrawn in place; all other output goes above them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from rich.console import Console, RenderableType
from rich.live import Live

_REFRESH_S = 0.2


class LiveRegion:
    """Shows what ``render`` returns at the bottom of the console's terminal; without a terminal, nothing."""

    def __init__(self, console: Console, render: Callable[[], RenderableType]) -> None:
        self._console = console
        self._render = render
        self._live: Live | None = None

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the region and redraw it regularly, until the context ends."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            yield
            return
        self._draw()
        redrawing = asyncio.create_task(self._redraw())
        try:
            yield
        finally:
            redrawing.cancel()
            self._erase()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the region off the screen while other output is written."""
        if self._live is None:
            yield
            return
        self._erase()
        try:
            yield
        finally:
            self._draw()

    async def _redraw(self) -> None:
        """Redraw the region regularly, until cancelled."""
        while True:
            await asyncio.sleep(_REFRESH_S)
            if self._live is not None:
                self._live.refresh()

    def _draw(self) -> None:
        """Draw the region below the cursor."""
        # A new one each time: a restarted Live would erase lines that are not its own any more.
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            auto_refresh=False,
            transient=True,
            # Otherwise rich sends standard output to the console, which is standard error.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def _erase(self) -> None:
        """Remove the region from the screen, if it is there."""
        if self._live is not None:
            self._live.stop()
            self._live = None
