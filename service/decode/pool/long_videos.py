"""Long videos: they go on at a lower process priority, beside other workers, and so block no short ones."""

import asyncio
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from time import monotonic

from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.worker_process import WorkerProcess

_NICENESS = 5  # beside a process of niceness 0, one of niceness 5 gets a third of the processor time


@dataclass(frozen=True, slots=True)
class Assignment:
    """A worker's video: since when it has the worker, a time of the monotonic clock, and whose it is."""

    since: float
    identity: str


def most_long_videos(limit: int, holding: Set[str], waiting: Set[str]) -> int:
    """Return how many videos may run long, of ``limit``, while videos of the identities ``waiting`` wait.

    Half of them are kept for identities that do not hold a worker, as those in ``holding`` do: else one could
    have all workers for hours. Videos of nobody in particular may be all of them.
    """
    return limit if "" in waiting or waiting - holding else limit - limit // 2


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

    def watch(self, assigned: Mapping[WorkerProcess, Assignment], waiting: Set[str]) -> None:
        """Set the timer for the next video that runs long.

        ``assigned`` has the video of each worker, ``waiting`` the identities of the videos that wait for one.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not waiting:
            return
        short = [process for process in assigned if process.is_alive and process not in self._workers]
        holding = {assignment.identity for assignment in assigned.values()}
        if short and len(self._workers) < most_long_videos(self._config.max_long_videos, holding, waiting):
            first = min(short, key=lambda process: assigned[process].since)
            wait_s = assigned[first].since + self._config.long_video_after_s - monotonic()
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._deprioritize, first)

    def _deprioritize(self, process: WorkerProcess) -> None:
        """Deprioritize ``process``, unless it has ended, and report that."""
        self._timer = None
        if process.is_alive:
            process.deprioritize(_NICENESS)
            self._workers.add(process)
        self._on_long()
