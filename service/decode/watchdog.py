"""How long a worker has owed an answer: too long at once means that it hangs, the sum how busy it was."""

import asyncio
import time
from collections.abc import Callable


class Watchdog:
    """Calls ``on_silence`` when ``silence_s`` pass between ``watch`` and the next ``watch`` or ``rest``."""

    def __init__(self, silence_s: float, on_silence: Callable[[], None]) -> None:
        self._silence_s = silence_s
        self._on_silence = on_silence
        self._timer: asyncio.TimerHandle | None = None
        self._since: float | None = None
        self._busy_before_s = 0.0

    @property
    def busy_s(self) -> float:
        """The time between ``watch`` and ``rest`` in sum, seconds."""
        return self._busy_before_s + (0.0 if self._since is None else time.monotonic() - self._since)

    def watch(self) -> None:
        """An answer is owed from now on, or a sign of life has come."""
        self.rest()
        self._since = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(self._silence_s, self._on_silence)

    def rest(self) -> None:
        """Nothing is owed."""
        self._busy_before_s = self.busy_s
        self._since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
