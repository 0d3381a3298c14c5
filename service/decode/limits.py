"""What one video may cost."""

from dataclasses import dataclass

from service.decode.protocol import Refusal


@dataclass(frozen=True, slots=True)
class Limits:
    """See ``service.config.DecodeConfig``."""

    max_pixels: int
    max_frames: int
    max_duration_s: float
    max_cpu_s: float
    threads: int


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raise ``Refusal`` VIDEO_TOO_LARGE when a frame is over the limit."""
    if width * height > limits.max_pixels:
        raise Refusal(
            "VIDEO_TOO_LARGE",
            f"frames of {width} x {height} pixels are more than {limits.max_pixels} pixels",
            limit=limits.max_pixels,
            value=width * height,
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
