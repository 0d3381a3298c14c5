"""The byte feed: tells a worker which bytes have arrived of a video that is still being uploaded."""

import asyncio
from collections.abc import Callable

from tubelet.service.decode.protocol import ProtocolError
from tubelet.service.types.video import VideoFile

_OVERDUE_AFTER_S = 0.05  # a worker that waits longer for bytes is replaced by another until they arrive


class ByteFeed:
    """Serves one worker's requests for bytes of one file, until ``stop``.

    ``on_bytes`` is called with the range that is available once a request can be served, ``on_overdue`` when
    that takes long, and ``on_error`` with the exception that ended the file early.
    """

    def __init__(
        self,
        file: VideoFile,
        on_bytes: Callable[[int, int], None],
        on_overdue: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.file = file
        self.is_overdue = False
        self._on_bytes, self._on_overdue, self._on_error = on_bytes, on_overdue, on_error
        self._task: asyncio.Task[None] | None = None

    @property
    def is_requested(self) -> bool:
        """Whether the worker waits for bytes."""
        return self._task is not None

    def request(self, start: int, end: int) -> None:
        """Begin to wait for some of the bytes from ``start`` to ``end``, which the worker needs to go on.

        Raises:
            ProtocolError: another request is still open, or the range is empty or negative.
        """
        if self._task is not None or not 0 <= start < end:
            raise ProtocolError(f"invalid request for bytes {start} to {end}")
        self._task = asyncio.create_task(self._serve(start, end))

    def stop(self) -> None:
        """Cancel the open request, if any."""
        if self._task is not None:
            self._task.cancel()

    async def _serve(self, start: int, end: int) -> None:
        """Wait until some of the bytes from ``start`` to ``end`` are available, and report which."""
        overdue_timer = asyncio.get_running_loop().call_later(_OVERDUE_AFTER_S, self._mark_overdue)
        try:
            available = await self.file.wait(start, end)
        except Exception as error:
            self._on_error(error)
            return
        finally:
            overdue_timer.cancel()
            self.is_overdue = False
        self._task = None
        self._on_bytes(*available)

    def _mark_overdue(self) -> None:
        """Mark the open request as overdue, and report that."""
        self.is_overdue = True
        self._on_overdue()
