"""Lines at the bottom of a terminal that are redrawn in place, with all other output above them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from rich.console import Console, RenderableType
from rich.live import Live

_REFRESH_S = 0.2


class LiveRegion:
    """What ``render`` returns, on the terminal of ``console``; nothing where that is no terminal."""

    def __init__(self, console: Console, render: Callable[[], RenderableType]) -> None:
        self._console = console
        self._render = render
        self._live: Live | None = None

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the region, and redraw it as time goes by."""
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
    def lifted(self) -> Iterator[None]:
        """Take the region off the screen while something else is written there."""
        if self._live is None:
            yield
            return
        self._erase()
        try:
            yield
        finally:
            self._draw()

    async def _redraw(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_S)
            if self._live is not None:
                self._live.refresh()

    def _draw(self) -> None:
        # A new one each time: one that is started again takes its old lines for lines on the screen.
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            auto_refresh=False,
            transient=True,
            # Rich would send standard output to the console of standard error.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def _erase(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
