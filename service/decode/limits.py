"""What one video may cost."""

from dataclasses import dataclass

from tubelet.service.decode.protocol import Refusal
from tubelet.service.types.video import NS_PER_S


@dataclass(frozen=True, slots=True)
class Limits:
    """See ``tubelet.service.config.config.DecodeConfig``."""

    max_pixels: int
    max_frames: int
    max_streams: int
    max_duration_s: float
    max_cpu_s: float
    threads: int
    hardware: str


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raise ``Refusal`` VIDEO_TOO_LARGE when a frame is over the limit."""
    if width * height > limits.max_pixels:
        raise Refusal(
            "VIDEO_TOO_LARGE",
            f"frames of {width} x {height} pixels are more than {limits.max_pixels} pixels",
            limit=limits.max_pixels,
            value=width * height,
        )


def check_streams(streams: int, limits: Limits) -> None:
    """Raise ``Refusal`` VIDEO_TOO_LARGE when there are more than the limit."""
    if streams > limits.max_streams:
        raise Refusal(
            "VIDEO_TOO_LARGE",
            f"the file has {streams} streams, more than {limits.max_streams}",
            limit=limits.max_streams,
            value=streams,
        )


def check_duration(duration_ns: int, limits: Limits) -> None:
    """Raise ``Refusal`` VIDEO_TOO_LARGE when a video lasts longer than the limit."""
    limit, found = limits.max_duration_s, duration_ns / NS_PER_S
    if found > limit:
        raise Refusal(
            "VIDEO_TOO_LARGE",
            f"the video lasts {found:.3f} s or more, the limit is {limit:g} s",
            limit=limit,
            value=found,
        )


def check_frames(frames: int, limits: Limits) -> None:
    """Raise ``Refusal`` VIDEO_TOO_LARGE when there are more than the limit."""
    if frames > limits.max_frames:
        raise Refusal(
            "VIDEO_TOO_LARGE",
            f"the video has more than {limits.max_frames} frames",
            limit=limits.max_frames,
            value=frames,
        )
