"""How a worker ends without being asked to, and what its video's client hears of it."""

from enum import StrEnum

from service.config import DecodeConfig
from service.errors import DecoderDied, TubeletError, VideoTooLarge


class Death(StrEnum):
    """A closed set, for metrics."""

    CRASHED = "crashed"  # by a signal, or by a mistake of ours
    SILENT = "silent"  # it showed no sign of life while it owed an answer
    STUCK = "stuck"  # it did not leave a video alone when told to
    BROKEN = "broken"  # it said what makes no sense
    MEMORY = "memory"  # its address space was used up
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
            limit = config.silence_s
            return DecoderDied(
                f"the decoder showed no progress with this video for {limit:g} s", limit=limit, value=found
            )
    return DecoderDied("the decoder stopped while it worked on this video")
