"""Long videos: they go on at a lower process priority, beside other workers, and so block no short ones."""

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic

from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.worker_process import WorkerProcess

_NICENESS = 5  # beside a process of niceness 0, one of niceness 5 gets a third of the processor time


class LongVideos:
    """The workers, at most ``config.max_long_videos``, whose videos run long while others wait.

    A video runs long when it has held its worker for ``config.long_video_after_s``. Then its worker is
    deprioritized for good, and ``on_long`` is called.
    """

    def __init__(self, config: DecodeConfig, on_long: Callable[[], None]) -> None:
        self._config = config
        self._on_long = on_long
        self._workers: set[WorkerProcess] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, process: WorkerProcess) -> bool:
        return process in self._workers

    def discard(self, process: WorkerProcess) -> None:
        """Forget ``process``, which has exited."""
        self._workers.discard(process)

    def watch(self, assigned: Mapping[WorkerProcess, float]) -> None:
        """Set the timer for the next video that runs long.

        ``assigned`` has the time at which each worker got its video; it is empty if no video waits.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        short = [process for process in assigned if process.is_alive and process not in self._workers]
        if short and len(self._workers) < self._config.max_long_videos:
            first = min(short, key=lambda process: assigned[process])
            wait_s = assigned[first] + self._config.long_video_after_s - monotonic()
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._deprioritize, first)

    def _deprioritize(self, process: WorkerProcess) -> None:
        """Deprioritize ``process``, unless it has ended, and report that."""
        self._timer = None
        if process.is_alive:
            process.deprioritize(_NICENESS)
            self._workers.add(process)
        self._on_long()
