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


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raise ``VideoRejected`` VIDEO_TOO_LARGE if frames of ``width`` x ``height`` exceed ``max_pixels``."""
    if width * height > limits.max_pixels:
        raise VideoRejected(
            "VIDEO_TOO_LARGE",
            f"frames of {width} x {height} pixels exceed the limit of {limits.max_pixels} pixels",
            limit=limits.max_pixels,
            value=width * height,
        )


def check_streams(streams: int, limits: Limits) -> None:
    """Raise ``VideoRejected`` VIDEO_TOO_LARGE if a file has more than ``max_streams`` streams."""
    if streams > limits.max_streams:
        raise VideoRejected(
            "VIDEO_TOO_LARGE",
            f"the file has {streams} streams, more than the limit of {limits.max_streams}",
            limit=limits.max_streams,
            value=streams,
        )


def check_duration(duration_ns: int, limits: Limits) -> None:
    """Raise ``VideoRejected`` VIDEO_TOO_LARGE if a video lasts longer than ``max_duration_s``."""
    limit, found = limits.max_duration_s, duration_ns / NS_PER_S
    if found > limit:
        raise VideoRejected(
            "VIDEO_TOO_LARGE",
            f"the video lasts {found:.3f} s or more, the limit is {limit:g} s",
            limit=limit,
            value=found,
        )


def check_frames(frames: int, limits: Limits) -> None:
    """Raise ``VideoRejected`` VIDEO_TOO_LARGE if a video has more than ``max_frames`` frames."""
    if frames > limits.max_frames:
        raise VideoRejected(
            "VIDEO_TOO_LARGE",
            f"the video has more than the limit of {limits.max_frames} frames",
            limit=limits.max_frames,
            value=frames,
        )
