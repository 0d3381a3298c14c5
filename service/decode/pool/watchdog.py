"""The limits on a worker while it owes a response: silence, and wall and processor time for each video."""

import asyncio
import time
from collections.abc import Callable

from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.worker_state import WorkerFailure

_CPU_SLACK_S = 1.0  # a worker checks its limit between packets; the watchdog covers one inside a long call
_MIN_CHECK_INTERVAL_S = 0.05  # the worker's processor clock may stand still, just below its limit


class Watchdog:
    """Limits on one worker, checked by a timer from ``arm`` to ``disarm``.

    ``on_exceeded`` is called with the failure, a text and the seconds measured when a limit is exceeded.
    ``heartbeat_timeout_s`` counts from the last call of ``arm``. ``max_wall_s`` and ``max_cpu_s`` count from
    ``start_video``, the wall time only while the watchdog is armed. ``on_work`` is called with 1 when the
    watchdog becomes armed and with -1 when it becomes disarmed.
    """

    def __init__(
        self,
        config: DecodeConfig,
        on_exceeded: Callable[[WorkerFailure, str, float], None],
        on_work: Callable[[int], None],
    ) -> None:
        self._config = config
        self._on_exceeded = on_exceeded
        self._on_work = on_work
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at: float | None = None
        self._past_busy_s = 0.0
        self._pid: int | None = None
        self._busy_at_start_s = 0.0
        self._cpu_at_start_s = 0.0

    @property
    def busy_s(self) -> float:
        """The total time for which the watchdog has been armed, in seconds."""
        return self._past_busy_s + (0.0 if self._armed_at is None else time.monotonic() - self._armed_at)

    def start_video(self, pid: int) -> None:
        """Count wall and processor time from now on, for a new video in process ``pid``."""
        self._pid = pid
        self._busy_at_start_s, self._cpu_at_start_s = self.busy_s, _cpu_s(pid)

    def arm(self) -> None:
        """Expect a response from now on; while armed, restart the count of silence."""
        if self._armed_at is None:
            self._on_work(1)
        self._past_busy_s = self.busy_s
        self._armed_at = time.monotonic()
        if self._timer is None:
            self._set_timer()

    def disarm(self) -> None:
        """Expect no response until the next call of ``arm``."""
        if self._armed_at is not None:
            self._past_busy_s = self.busy_s
            self._armed_at = None
            self._on_work(-1)

    def stop(self) -> None:
        """Disarm for good, and cancel the timer."""
        self.disarm()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # The timer is not moved at each message, since hundreds of them arrive. A message can only postpone a
    # limit, never bring it forward, so a timer that fires too early is simply set again.

    def _check(self) -> None:
        """Report a limit that is exceeded; otherwise set the timer again."""
        self._timer = None
        if self._armed_at is None:
            return
        for failure, used_s, limit_s, _ in self._limits():
            if used_s >= limit_s:
                self._on_exceeded(failure, f"after {used_s:.3f} s", used_s)
                return
        self._set_timer()

    def _set_timer(self) -> None:
        """Set the timer for the earliest moment at which a limit can be exceeded."""
        wait_s = min((limit_s - used_s) / rate for _, used_s, limit_s, rate in self._limits())
        self._timer = asyncio.get_running_loop().call_later(max(wait_s, _MIN_CHECK_INTERVAL_S), self._check)

    def _limits(self) -> list[tuple[WorkerFailure, float, float, int]]:
        """Return rows of (failure, seconds used, limit in seconds, most seconds used in a second)."""
        assert self._armed_at is not None
        config, silent_s = self._config, time.monotonic() - self._armed_at
        rows = [(WorkerFailure.HUNG, silent_s, config.heartbeat_timeout_s, 1)]
        if self._pid is not None:
            wall_s, cpu_s = self.busy_s - self._busy_at_start_s, _cpu_s(self._pid) - self._cpu_at_start_s
            rows.append((WorkerFailure.WALL_TIME, wall_s, config.max_wall_s, 1))
            rows.append((WorkerFailure.CPU_TIME, cpu_s, config.max_cpu_s + _CPU_SLACK_S, config.threads))
        return rows


def _cpu_s(pid: int) -> float:
    """Return the processor time of all threads of process ``pid``; 0 if it has ended or cannot be measured.

    The id of its clock is computed as clock_getcpuclockid(3) computes it.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0
