"""The bytes of a video that is on its way, told to its worker as they come."""

import asyncio
from collections.abc import Callable

from tubelet.service.types.video import VideoFile

_PATIENCE_S = 0.05  # a worker that waits for longer than this is one less that works


class Supply:
    """Serves one worker with one file until ``stop``.

    ``tell`` gets the range that is there when it is; ``on_wait`` is called when that takes long, and
    ``on_error`` with what ended the file before its time.
    """

    def __init__(
        self,
        file: VideoFile,
        tell: Callable[[int, int], None],
        on_wait: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.file = file
        self.is_waiting = False
        self._tell, self._on_wait, self._on_error = tell, on_wait, on_error
        self._serving: asyncio.Task[None] | None = None

    @property
    def is_pending(self) -> bool:
        """The worker waits for bytes."""
        return self._serving is not None

    def need(self, start: int, end: int) -> None:
        """The worker cannot go on without some of these bytes.

        Raises:
            ValueError: it waits for others already, or there can be no such bytes.
        """
        if self._serving is not None or not 0 <= start < end:
            raise ValueError(f"bytes {start} to {end} are not to be had")
        self._serving = asyncio.create_task(self._serve(start, end))

    def stop(self) -> None:
        if self._serving is not None:
            self._serving.cancel()

    async def _serve(self, start: int, end: int) -> None:
        late = asyncio.get_running_loop().call_later(_PATIENCE_S, self._wait)
        try:
            there = await self.file.wait(start, end)
        except Exception as error:
            self._on_error(error)
            return
        finally:
            late.cancel()
            self.is_waiting = False
        self._serving = None
        self._tell(*there)

    def _wait(self) -> None:
        self.is_waiting = True
        self._on_wait()
