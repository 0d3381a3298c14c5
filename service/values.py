"""The frozen values that stages hand to each other, checked at birth. No torch, no protos.

Times are integer nanoseconds from the first presented frame of the video (``_ns``).
S units in a window, t frames in a unit, T = S * t frames in a window, H W C pixels, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np

NS_PER_S = 1_000_000_000
DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What the probe found: display size after rotation, and the times that the packets really span."""

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
        if self.width < 1 or self.height < 1 or self.duration_ns < 1:
            raise ValueError(f"a video has a size and a duration: {self}")


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """What the decoder makes of a frame: RGB uint8 at the model's size.

    The picture is resized until it covers the resized size (``crop``) or fills it (``stretch``); then the
    centre is cut out, which goes up and left or to the even pixel where it lies between two. ``swscale``
    resamples while it converts colours, the others afterwards in RGB.
    """

    height: int
    width: int
    resize: Literal["crop", "stretch"]
    resize_height: int | None = None  # None: as high and wide as the result
    resize_width: int | None = None
    resample: Literal["swscale", "bilinear", "bicubic", "lanczos", "bilinear_aliased"] = "swscale"
    crop_rounding: Literal["down", "half_even"] = "down"

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) that the resized picture covers or fills."""
        return self.resize_height or self.height, self.resize_width or self.width

    def crop_start(self, resized: int, kept: int) -> int:
        """The first of ``kept`` pixels in the middle of ``resized``."""
        margin = resized - kept
        return margin // 2 if self.crop_rounding == "down" else round(margin / 2)


@dataclass(frozen=True, slots=True)
class Grid:
    """One time range cut into units, windows and segments: an arithmetic object, never a list.

    Unit u covers [start + u * unit, start + (u + 1) * unit); its t frames are sampled in equal parts of it,
    each ``lag_ns`` after the start of its part, or in the middle where that is None. Window w is S
    consecutive units; windows start every ``stride_units``, the last one ends with the last unit.
    Segment i starts every ``stride_units`` too; its logits are the mean of the windows that contain its
    middle. ``one_segment`` makes the whole range one segment, its windows being views.
    """

    start_ns: int
    end_ns: int
    window_ns: int
    frames_per_unit: int
    units_per_window: int
    stride_units: int
    one_segment: bool = False
    lag_ns: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start_ns < self.end_ns:
            raise ValueError(f"a grid needs a range: {self}")
        if not 0 < self.window_ns <= self.end_ns - self.start_ns:
            raise ValueError(f"a window must fit into its range: {self}")
        if not 1 <= self.stride_units <= self.units_per_window:
            raise ValueError(f"the stride must be 1 to {self.units_per_window} units: {self}")

    @property
    def num_units(self) -> int:
        return (self.end_ns - self.start_ns) * self.units_per_window // self.window_ns

    @property
    def num_windows(self) -> int:
        return -(-(self.num_units - self.units_per_window) // self.stride_units) + 1

    @property
    def num_segments(self) -> int:
        if self.one_segment:
            return 1
        # A tail of less than half a stride joins the segment before it.
        return max(1, (2 * self.num_units + self.stride_units) // (2 * self.stride_units))

    def frame_time_ns(self, unit: int, frame: int) -> int:
        """When frame ``frame`` (0..t-1) of unit ``unit`` is sampled."""
        sampled = unit * self.frames_per_unit + frame
        frames_per_window = self.frames_per_unit * self.units_per_window
        if self.lag_ns is not None:
            return self.start_ns + sampled * self.window_ns // frames_per_window + self.lag_ns
        return self.start_ns + (2 * sampled + 1) * self.window_ns // (2 * frames_per_window)

    def window_start(self, window: int) -> int:
        """The first unit of a window."""
        return min(window * self.stride_units, self.num_units - self.units_per_window)

    def window_units(self, window: int) -> range:
        first = self.window_start(window)
        return range(first, first + self.units_per_window)

    def window_ending_at(self, unit: int) -> int | None:
        """The window whose last unit this is, if there is one."""
        if unit == self.num_units - 1:
            return self.num_windows - 1
        window, rest = divmod(unit + 1 - self.units_per_window, self.stride_units)
        return window if rest == 0 and window >= 0 else None

    def segment_range_ns(self, segment: int) -> tuple[int, int]:
        """[start, end) of a segment; the last one ends where the range ends."""
        last = segment == self.num_segments - 1
        stride_ns = self.window_ns * self.stride_units
        start = self.start_ns + segment * stride_ns // self.units_per_window
        end = self.end_ns if last else self.start_ns + (segment + 1) * stride_ns // self.units_per_window
        return start, end

    def segment_windows(self, segment: int) -> range:
        """The windows whose logits a segment averages."""
        if self.one_segment:
            return range(self.num_windows)
        # In half units, so that the middle is an integer.
        is_last = segment == self.num_segments - 1
        middle = segment * self.stride_units
        middle += self.num_units if is_last else (segment + 1) * self.stride_units
        final = self.num_windows - 1
        first = max(0, (middle - 2 * self.units_per_window) // (2 * self.stride_units) + 1)
        last = final if 2 * self.window_start(final) <= middle else middle // (2 * self.stride_units)
        return range(min(first, final), last + 1)

    def cut(self, end_ns: int) -> "Grid":
        """The same grid over a range that ends early; one window at least remains."""
        return replace(self, end_ns=max(min(end_ns, self.end_ns), self.start_ns + self.window_ns))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request wants of a video: grids in the order of time, over ranges that do not overlap."""

    grids: tuple[Grid, ...]

    def __post_init__(self) -> None:
        if not self.grids:
            raise ValueError("a plan needs a grid")
        for before, after in pairwise(self.grids):
            if after.start_ns < before.end_ns:
                raise ValueError(f"grids overlap: {before} and {after}")

    @property
    def total_ns(self) -> int:
        return sum(grid.end_ns - grid.start_ns for grid in self.grids)

    def cut(self, end_ns: int) -> "Plan | None":
        """The same plan for a video that ends early; None if nothing of it is left."""
        grids = tuple(grid.cut(end_ns) for grid in self.grids if grid.start_ns < end_ns)
        return Plan(grids) if grids else None


@dataclass(frozen=True, slots=True)
class WholeVideo:
    """One segment for each range, seen by as few windows as the model's longest window allows."""


@dataclass(frozen=True, slots=True)
class Sliding:
    """Overlapping windows; None stands for the model's own lengths."""

    window_ns: int | None = None
    stride_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What the client asks for. An empty model or version stands for the server's default."""

    model: str = ""
    version: str = ""
    top_k: int = DEFAULT_TOP_K
    score_threshold: float = 0.0
    windowing: WholeVideo | Sliding = Sliding()
    ranges_ns: tuple[tuple[int, int], ...] = ()  # [start, end); none: the whole video


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
class DecodeEnd:
    """What the decoder says when it is through: where the frames really ended, and what went wrong."""

    end_ns: int
    frames_decoded: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Label:
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Labels of the time range [start_ns, end_ns)."""

    start_ns: int
    end_ns: int
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a video is: seconds of it decoded, and seconds that the plan covers."""

    decoded_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The whole answer for one video."""

    facts: VideoFacts
    model: str
    version: str
    segments: tuple[Segment, ...]
    labels: tuple[Label, ...]
    stage_seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
