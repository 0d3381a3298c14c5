"""What a worker costs while it owes an answer: time without a word, time for one video, time in sum."""

import asyncio
import time
from collections.abc import Callable
from enum import StrEnum

from tubelet.service.config.config import DecodeConfig
from tubelet.service.errors import DecoderCrashed, TubeletError, VideoTooLarge


class Death(StrEnum):
    """A closed set, for metrics."""

    CRASHED = "crashed"  # by a signal, or by a mistake of ours
    SILENT = "hung"  # it showed no sign of life while it owed an answer
    STUCK = "stop_timeout"  # it did not leave a video alone when told to
    BROKEN = "protocol_error"  # it said what makes no sense
    MEMORY = "oom"  # its address space was used up
    CPU_TIME = "cpu_time"  # its video used up the processor time, inside one call of FFmpeg
    WALL_TIME = "wall_time"  # its video used up the wall time


def error_for(death: Death, config: DecodeConfig, value: float | None = None) -> TubeletError:
    """For the client; ``value`` is what was found where a limit was broken."""
    found = "" if value is None else f"{value:.3f}"
    match death:
        case Death.MEMORY:
            limit = config.memory_bytes
            return VideoTooLarge(
                f"the video needs more than {limit} bytes of memory to decode", limit=limit, value=f">{limit}"
            )
        case Death.CPU_TIME:
            limit = config.max_cpu_s
            return VideoTooLarge(
                f"the video needs more than {limit:g} s of processor time to decode", limit=limit, value=found
            )
        case Death.WALL_TIME:
            limit = config.max_wall_s
            return VideoTooLarge(
                f"the video keeps a decoder busy for more than {limit:g} s", limit=limit, value=found
            )
        case Death.SILENT:
            limit = config.heartbeat_timeout_s
            return DecoderCrashed(
                f"the decoder showed no progress with this video for {limit:g} s", limit=limit, value=found
            )
    return DecoderCrashed("the decoder stopped while it worked on this video")


_CPU_SLACK_S = 1.0  # a worker refuses by itself between packets; this is for one that is inside a long call
_SHORTEST_S = 0.05  # between two looks at a clock that the worker may not be moving


class Watchdog:
    """Calls ``on_excess`` with what a worker breaks between ``watch`` and ``rest``, and the seconds found.

    ``heartbeat_timeout_s`` counts from the last ``watch``; ``max_wall_s`` and ``max_cpu_s`` from ``begin``,
    the wall time only while it is watched. ``on_work`` hears 1 when an answer begins to be owed, -1 when none
    is.
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
        accounts = [(Death.SILENT, silent_s, config.heartbeat_timeout_s, 1)]
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
