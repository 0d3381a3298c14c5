"""The frozen values that stages hand to each other, checked at birth. No torch, no protos.

Times are integer nanoseconds from the first presented frame of the video (``_ns``).
t frames in a unit, H W C pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Literal, Protocol, get_args

import numpy as np

NS_PER_S = 1_000_000_000


def to_ns(seconds: float) -> int:
    """Round a time in seconds to whole nanoseconds.

    Raises:
        ValueError: ``seconds`` is not a finite number.
    """
    if not isfinite(seconds):
        raise ValueError(f"a time must be a finite number of seconds; found {seconds}")
    return round(seconds * NS_PER_S)


Crop = Literal["start", "centre", "end"]
"""Which part of the resized picture a model sees: it moves along the side that has more to spare."""
CROPS: tuple[Crop, ...] = ("start", "centre", "end")

Stage = Literal["upload", "fetch", "probe", "decode", "queue", "encode", "classify", "total"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""What is timed of a request, in the order of the pipeline."""


class Protection(StrEnum):
    """A layer between a worker that a video has taken over and everything else."""

    RLIMITS = "rlimits"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


class VideoFile(Protocol):
    """The bytes of a video in a seekable file, of which some may be missing still.

    Whoever reads them uses the places that ``wait`` has told of, all of them once ``is_whole``. ``fd`` may
    become another with the same bytes after any wait. ``size_bytes`` is None as long as it is not known: as
    long as bytes come from the front, all of them. Where it is known, those at any place can be asked for.
    """

    @property
    def fd(self) -> int: ...

    @property
    def size_bytes(self) -> int | None: ...

    @property
    def is_whole(self) -> bool: ...

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        """Wait for the byte at ``start`` (better, all up to ``end``) or the file's end: what is there."""
        ...

    async def whole(self) -> int:
        """Wait for all of it: its size in bytes."""
        ...


@dataclass(frozen=True, slots=True)
class VideoMetadata:
    """What a video is: its display size after rotation, and the times that its packets really span.

    While it is on its way, what its header says; zero for what that leaves open.
    """

    container: str
    codec: str
    width: int
    height: int
    fps: float
    frames: int
    duration_ns: int
    size_bytes: int
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or self.duration_ns < 0:
            raise ValueError(f"a video has a size, and no negative duration: {self}")

    @property
    def duration_s(self) -> float:
        """The duration in seconds."""
        return self.duration_ns / NS_PER_S


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """What the decoder makes of a frame: RGB uint8 at the model's size.

    The picture is resized until it covers the resized size (``crop``) or fills it (``stretch``); then a crop
    is cut out of it. The centre goes up and left or to the even pixel where it lies between two. ``swscale``
    resamples while it converts colours, the others afterwards in RGB; where the resized picture is smaller
    than the crop, the rest of it is black.
    """

    height: int
    width: int
    resize: Literal["crop", "stretch"]
    resize_height: int | None = None  # None: as high and wide as the result
    resize_width: int | None = None
    resample: Literal["swscale", "bilinear", "bicubic", "lanczos", "nearest", "bilinear_aliased"] = "swscale"
    crop_rounding: Literal["down", "half_even"] = "down"

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) that the resized picture covers or fills."""
        return self.resize_height or self.height, self.resize_width or self.width

    def corner(self, crop: Crop, height: int, width: int) -> tuple[int, int]:
        """Where a crop begins in a picture resized to this size: (top, left)."""
        down, across = height - self.height, width - self.width
        if crop == "centre" or max(down, across) <= 0:
            return self._half(down), self._half(across)
        if down > across:
            return (down if crop == "end" else 0), self._half(across)
        return self._half(down), (across if crop == "end" else 0)

    def _half(self, margin: int) -> int:
        if margin < 0:
            return -(-margin // 2)
        return margin // 2 if self.crop_rounding == "down" else round(margin / 2)


@dataclass(frozen=True, slots=True)
class UnitFrames:
    """The t frames of one unit, as a view of shared memory that ``release`` gives back to the decoder."""

    grid: int
    unit: int
    pixels: np.ndarray = field(repr=False)  # (t, H, W, C) uint8
    release: Callable[[], None] = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[3] != 3:
            raise ValueError(f"a unit is (t, H, W, 3) uint8, not {self.pixels.shape} {self.pixels.dtype}")


@dataclass(frozen=True, slots=True)
class DecodeSummary:
    """What the decoder says when it is through: where the frames really ended, and what went wrong."""

    end_ns: int
    frames_decoded: int
    warnings: tuple[str, ...]
    metadata: VideoMetadata  # of the whole video, which may have been on its way before
    max_frame_offset_ns: int = 0  # how far frames were taken from the times wanted, at most
