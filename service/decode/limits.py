"""The limits on what one video may cost to decode, and the checks that reject a video above them."""

from dataclasses import dataclass

from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.types.video import NS_PER_S


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits and settings of decoding; ``tubelet.service.config.config.DecodeConfig`` documents them."""

    max_pixels: int
    max_frames: int
    max_streams: int
    max_duration_s: float
    max_cpu_s: float
    threads: int
    hardware: str


def too_large(message: str, limit: int | float, value: int | float) -> VideoRejected:
    """Create the ``VideoRejected`` VIDEO_TOO_LARGE of a video whose ``value`` exceeds ``limit``."""
    return VideoRejected("VIDEO_TOO_LARGE", message, limit=limit, value=value)


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raise ``VideoRejected`` VIDEO_TOO_LARGE if frames of ``width`` x ``height`` exceed ``max_pixels``."""
    limit, found = limits.max_pixels, width * height
    if found > limit:
        message = f"frames of {width} x {height} pixels exceed the limit of {limit} pixels"
        raise too_large(message, limit, found)


def check_streams(streams: int, limits: Limits) -> None:
    """Raise ``VideoRejected`` VIDEO_TOO_LARGE if a file has more than ``max_streams`` streams."""
    limit = limits.max_streams
    if streams > limit:
        message = f"the file has {streams} streams, more than the limit of {limit}"
        raise too_large(message, limit, streams)


def check_duration(duration_ns: int, limits: Limits) -> None:
    """Raise ``VideoRejected`` VIDEO_TOO_LARGE if a video lasts longer than ``max_duration_s``."""
    limit, found = limits.max_duration_s, duration_ns / NS_PER_S
    if found > limit:
        message = f"the video lasts {found:.3f} s or more, the limit is {limit:g} s"
        raise too_large(message, limit, found)


def check_frames(frames: int, limits: Limits) -> None:
    """Raise ``VideoRejected`` VIDEO_TOO_LARGE if a video has more than ``max_frames`` frames."""
    limit = limits.max_frames
    if frames > limit:
        raise too_large(f"the video has more than the limit of {limit} frames", limit, frames)
