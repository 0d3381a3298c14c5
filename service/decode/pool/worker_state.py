"""The states of a worker process, the failures that end it, and what the pool is told of it."""

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from tubelet.service.config.config import DecodeConfig
from tubelet.service.errors import DecoderCrashed, TubeletError, VideoTooLarge

if TYPE_CHECKING:
    from tubelet.service.decode.pool.worker_process import WorkerProcess


class WorkerState(StrEnum):
    """What a worker process does, and so which messages it may send."""

    STARTING = "starting"  # owes Ready
    IDLE = "idle"  # has no video
    PROBING = "probing"  # owes Probed or Rejected
    OPEN = "open"  # has a video, and owes nothing
    DECODING = "decoding"  # owes units and then End, or Rejected
    STOPPING = "stopping"  # owes Stopped
    DEAD = "dead"  # has ended, or is being killed

    @property
    def has_video(self) -> bool:
        """Whether the worker holds a video that has to be stopped."""
        return self in (WorkerState.PROBING, WorkerState.OPEN, WorkerState.DECODING)

    @property
    def owes_response(self) -> bool:
        """Whether the worker has to send something before it may rest."""
        return self not in (WorkerState.IDLE, WorkerState.OPEN, WorkerState.DEAD)


class WorkerFailure(StrEnum):
    """Why a worker ended or was killed. The values are label values of a metric."""

    CRASHED = "crashed"  # killed by a signal, or ended by a bug of ours
    HUNG = "hung"  # sent nothing for too long while it owed a response
    STOP_TIMEOUT = "stop_timeout"  # did not stop its video in time when asked to
    PROTOCOL_ERROR = "protocol_error"  # violated the protocol
    OOM = "oom"  # used up its address space
    CPU_TIME = "cpu_time"  # exceeded the video's processor time, inside one call of FFmpeg
    WALL_TIME = "wall_time"  # exceeded the video's wall time


def client_error(failure: WorkerFailure, config: DecodeConfig, value: float | None = None) -> TubeletError:
    """Return the client's error for ``failure``; ``value`` is what was measured against the limit."""
    found = "" if value is None else f"{value:.3f}"
    match failure:
        case WorkerFailure.OOM:
            limit = config.memory_bytes
            return VideoTooLarge(
                f"the video needs more than {limit} bytes of memory to decode", limit=limit, value=f">{limit}"
            )
        case WorkerFailure.CPU_TIME:
            limit = config.max_cpu_s
            return VideoTooLarge(
                f"the video needs more than {limit:g} s of processor time to decode", limit=limit, value=found
            )
        case WorkerFailure.WALL_TIME:
            limit = config.max_wall_s
            return VideoTooLarge(
                f"the video keeps a decoder busy for more than {limit:g} s", limit=limit, value=found
            )
        case WorkerFailure.HUNG:
            limit = config.heartbeat_timeout_s
            return DecoderCrashed(
                f"the decoder showed no progress with this video for {limit:g} s", limit=limit, value=found
            )
    return DecoderCrashed("the decoder stopped while it worked on this video")


class WorkerObserver(Protocol):
    """The receiver of what happens to worker processes: their pool."""

    def worker_failed(self, process: "WorkerProcess", failure: WorkerFailure) -> None:
        """Take note that ``process`` ended without being asked to; it is called once."""

    def worker_waits_for_upload(self) -> None:
        """Take note that a worker waits for bytes of a video that is still being uploaded."""

    def work_changed(self, change: int) -> None:
        """Take note that a worker began to work (``change`` is 1), or that it pauses (-1)."""
