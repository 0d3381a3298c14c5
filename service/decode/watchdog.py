"""What a worker costs while it owes an answer: time without a word, time for one video, time in sum."""

import asyncio
import time
from collections.abc import Callable

from service.config import DecodeConfig
from service.decode.death import Death

_CPU_SLACK_S = 1.0  # a worker refuses by itself between packets; this is for one that is inside a long call
_SHORTEST_S = 0.05  # between two looks at a clock that the worker may not be moving


class Watchdog:
    """Calls ``on_excess`` with what a worker breaks between ``watch`` and ``rest``, and the seconds found.

    ``silence_s`` counts from the last ``watch``; ``max_wall_s`` and ``max_cpu_s`` from ``begin``, the wall
    time only while it is watched. ``on_work`` hears 1 when an answer begins to be owed, -1 when none is.
    """

    def __init__(
        self,
        config: DecodeConfig,
        on_excess: Callable[[Death, float], None],
        on_work: Callable[[int], None],
    ) -> None:
        self._config = config
        self._on_excess = on_excess
        self._on_work = on_work
        self._timer: asyncio.TimerHandle | None = None
        self._since: float | None = None
        self._busy_before_s = 0.0
        self._pid: int | None = None
        self._busy_at_begin_s = 0.0
        self._cpu_at_begin_s = 0.0

    @property
    def busy_s(self) -> float:
        """The time between ``watch`` and ``rest`` in sum, seconds."""
        return self._busy_before_s + (0.0 if self._since is None else time.monotonic() - self._since)

    def begin(self, pid: int) -> None:
        """A video begins in this process."""
        self._pid = pid
        self._busy_at_begin_s, self._cpu_at_begin_s = self.busy_s, _cpu_s(pid)

    def watch(self) -> None:
        """An answer is owed from now on, or a sign of life has come."""
        if self._since is None:
            self._on_work(1)
        self._busy_before_s = self.busy_s
        self._since = time.monotonic()
        if self._timer is None:
            self._look_again()

    def rest(self) -> None:
        """Nothing is owed."""
        if self._since is not None:
            self._busy_before_s = self.busy_s
            self._since = None
            self._on_work(-1)

    def end(self) -> None:
        """Nothing will be owed any more."""
        self.rest()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # A timer is set once and left alone, since signs of life come by the hundred: each puts off what is due,
    # nothing brings it forward, and a timer that finds itself too early is set again.

    def _look(self) -> None:
        self._timer = None
        if self._since is None:
            return
        for death, spent_s, limit_s, _ in self._accounts():
            if spent_s >= limit_s:
                self._on_excess(death, spent_s)
                return
        self._look_again()

    def _look_again(self) -> None:
        in_s = min((limit_s - spent_s) / rate for _, spent_s, limit_s, rate in self._accounts())
        self._timer = asyncio.get_running_loop().call_later(max(in_s, _SHORTEST_S), self._look)

    def _accounts(self) -> list[tuple[Death, float, float, int]]:
        """What it means, seconds spent, seconds granted, how many are spent in a second at most."""
        assert self._since is not None
        config, silent_s = self._config, time.monotonic() - self._since
        accounts = [(Death.SILENT, silent_s, config.silence_s, 1)]
        if self._pid is not None:
            wall_s, cpu_s = self.busy_s - self._busy_at_begin_s, _cpu_s(self._pid) - self._cpu_at_begin_s
            accounts.append((Death.WALL_TIME, wall_s, config.max_wall_s, 1))
            accounts.append((Death.CPU_TIME, cpu_s, config.max_cpu_s + _CPU_SLACK_S, config.threads))
        return accounts


def _cpu_s(pid: int) -> float:
    """Processor time of all threads of a process; 0 where it has ended or the kernel does not tell.

    The clock's number is that of clock_getcpuclockid(3), made as the C library makes it.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0
