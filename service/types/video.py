"""The video, its metadata, frames and thumbnails, as frozen values that are checked when they are made.

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
MAX_THUMBNAILS = 60  # of one video
MAX_THUMBNAIL_SIDE = 160  # pixels of the longer side; smaller pictures are not enlarged
MAX_THUMBNAIL_BYTES = (
    16 << 10
)  # so those of a video have at most 960 KiB: many clients take 4 MiB in a message
_SIDE_LIMIT, _SUM_LIMIT = 1 << 31, 1 << 63  # pixels of a side, and sums, that an answer cannot hold


def to_ns(seconds: float) -> int:
    """Round a time in seconds to whole nanoseconds.

    Raises:
        ValueError: ``seconds`` is not a finite number.
    """
    if not isfinite(seconds):
        raise ValueError(f"a time must be a finite number of seconds; found {seconds}")
    return round(seconds * NS_PER_S)


Crop = Literal["start", "centre", "end"]
"""The part of the resized picture that a model sees: the crop moves along the side with the larger margin."""
CROPS: tuple[Crop, ...] = ("start", "centre", "end")


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of the picture as it is shown, upright: shares of its width and height, from the top left.

    It exceeds 0 to 1 where the model sees black borders around the picture.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (self.left < self.right and self.top < self.bottom):
            raise ValueError(f"a rectangle must have a positive width and height: {self}")

    def patch(self, row: int, column: int, rows: int, columns: int) -> "Rectangle":
        """Return the patch at (``row``, ``column``) of ``rows`` x ``columns`` equal ones."""
        wide, high = (self.right - self.left) / columns, (self.bottom - self.top) / rows
        left, top = self.left + column * wide, self.top + row * high
        return Rectangle(left, top, left + wide, top + high)


Stage = Literal["upload", "fetch", "probe", "decode", "queue", "encode", "classify", "explain", "total"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""The stages of a request whose time is measured, in the order of the pipeline."""


class Protection(StrEnum):
    """A layer of the sandbox around a decode worker, in case a video exploits a fault in the decoder."""

    RLIMITS = "rlimits"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


class VideoFile(Protocol):
    """A video's bytes in a seekable file, of which some may not have arrived yet.

    Only byte ranges that ``wait`` has returned may be read, or all bytes once ``is_whole`` is true.
    ``size_bytes`` is None while an upload goes on: its bytes arrive in order. Once the size is known,
    ``wait`` may ask for any bytes.
    """

    @property
    def fd(self) -> int: ...

    @property
    def size_bytes(self) -> int | None: ...

    @property
    def is_whole(self) -> bool: ...

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        """Wait for the byte at ``start``, if possible for all up to ``end``.

        Return the range [start, end) that has arrived; it is shorter where the file ends.
        """
        ...

    async def whole(self) -> int:
        """Wait for all bytes; return the size of the file in bytes."""
        ...


@dataclass(frozen=True, slots=True)
class VideoMetadata:
    """The metadata of a video: its container and codec, displayed size, frame rate and duration.

    The values come from the packets, not from the header. Only while the video is still arriving, they are
    the header's, and 0 where the header says nothing. Width and height are those after rotation.
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
    pixel_format: str = ""  # FFmpeg's name; empty from servers that do not tell
    shown_as_stored: bool = False  # the picture is neither turned, mirrored, cropped nor stretched

    def __post_init__(self) -> None:
        sides, sums = (self.width, self.height), (self.frames, self.duration_ns, self.size_bytes)
        if min(sides) < 1 or max(sides) >= _SIDE_LIMIT or min(sums) < 0 or max(sums) >= _SUM_LIMIT:
            raise ValueError(f"a video must be at least 1 x 1 pixels, and no number negative or huge: {self}")

    @property
    def duration_s(self) -> float:
        """The duration in seconds."""
        return self.duration_ns / NS_PER_S


@dataclass(frozen=True, slots=True)
class UnitFrames:
    """The t frames of one unit, in shared memory of the decode worker until ``release`` is called."""

    grid: int
    unit: int
    pixels: np.ndarray = field(repr=False)  # (t, H, W, C) uint8
    release: Callable[[], None] = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[3] != 3:
            raise ValueError(f"a unit is (t, H, W, 3) uint8, not {self.pixels.shape} {self.pixels.dtype}")


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG of the whole picture shown at ``time_ns``: upright, with square pixels, in SDR."""

    time_ns: int
    width: int
    height: int
    jpeg: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.time_ns < 0 or min(self.width, self.height) < 1:
            raise ValueError(f"a thumbnail must be at least 1 x 1 pixels, at a time of the video: {self}")

    @property
    def time_s(self) -> float:
        """The time in seconds."""
        return self.time_ns / NS_PER_S


@dataclass(frozen=True, slots=True)
class DecodeSummary:
    """The result of decoding a plan: where the frames ended, how many were decoded, warnings, thumbnails."""

    end_ns: int
    frames_decoded: int
    warnings: tuple[str, ...]
    metadata: VideoMetadata  # of the complete video, which may still have been arriving when it was probed
    max_frame_offset_ns: int = 0  # largest distance of a frame from the time wanted
    thumbnails: tuple[Thumbnail, ...] = ()  # in the order of time

    def __post_init__(self) -> None:
        sums = (self.frames_decoded, self.max_frame_offset_ns)
        if min(sums) < 0 or max(sums) >= _SUM_LIMIT:
            raise ValueError(f"no number of a decode run may be negative or huge: {self}")
