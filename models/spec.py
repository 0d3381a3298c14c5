"""The specification of a model: sampling, preprocessing, labels, provenance. No weights, no torch.

S units in a window, t frames in a unit, H W pixels, K classes.
"""

import re
from dataclasses import dataclass
from typing import Literal

Family = Literal[
    "vit", "factorised", "channel_stack", "joint", "divided", "torchvision", "framewise", "r2plus1d", "hf"
]
Resize = Literal["crop", "stretch"]
Resample = Literal["swscale", "bilinear", "bicubic", "lanczos", "nearest", "bilinear_aliased"]
Position = Literal["middle", "start"]
CropRounding = Literal["down", "half_even"]
OutputActivation = Literal["softmax", "sigmoid"]
"""How logits become scores: softmax over all labels, or sigmoid of each label by itself (multi-label)."""

LONGEST_WINDOW_S = 24 * 3600
"""The longest window that a model may be made for, seconds."""

_NAME_LENGTH = 100  # characters, at most
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # names become folders and metric labels


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames a model gets: windows of S units of t frames, evenly spaced in time.

    A window is cut into as many equal intervals as it has frames. With ``position`` "middle" the frame shown
    in the middle of each interval is taken, as in segment sampling (Wang et al., TSN, arXiv 1608.00859); with
    "start" the frame shown at its start, as in strided clips (every k-th frame).
    """

    frames_per_unit: int
    units_per_window: int
    window_s: float  # default length of a window, seconds
    stride_s: float  # default distance between the starts of two windows, seconds
    min_window_s: float  # shortest window that the model was made for, seconds
    max_window_s: float  # longest window that the model was made for, seconds
    position: Position = "middle"

    def __post_init__(self) -> None:
        if self.frames_per_unit < 1 or self.units_per_window < 1:
            raise ValueError(
                "a window needs at least one unit of one frame, not "
                f"{self.units_per_window} of {self.frames_per_unit}"
            )
        if not 0 < self.min_window_s <= self.window_s <= self.max_window_s <= LONGEST_WINDOW_S:
            raise ValueError(
                f"window lengths must satisfy 0 < min <= default <= max <= {LONGEST_WINDOW_S} s, they are "
                f"{self.min_window_s:g}, {self.window_s:g} and {self.max_window_s:g}"
            )
        if not 0 < self.stride_s <= self.window_s:
            raise ValueError(
                f"the stride must be positive and at most the window of {self.window_s:g} s, it is "
                f"{self.stride_s:g}"
            )

    @property
    def frames_per_window(self) -> int:
        """T = S t, the frames that the model sees for one prediction."""
        return self.frames_per_unit * self.units_per_window


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a decoded frame becomes the pixels of a model: resize, then cut out the centre, then normalise.

    ``resize``: "crop" keeps the aspect ratio and covers the resized size, "stretch" scales each side to it.
    ``resample``: "swscale" resamples while colours are converted, which is fastest. All others resample in
    RGB as Pillow and torchvision do, so that a checkpoint sees the pixels that it was trained on; they are
    antialiased, except "bilinear_aliased" and "nearest". ``crop_rounding`` says which pixel is the centre
    when it lies between two: the lower one (transformers) or the even one (torchvision). ``mean`` and ``std``
    are of R, G and B scaled to 0..1. A picture resized in RGB to less than the crop gets black borders.
    """

    height: int
    width: int
    resize: Resize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_height: int | None = None  # pixels before the centre is cut out; None: ``height``
    resize_width: int | None = None  # None: ``width``
    resample: Resample = "swscale"
    crop_rounding: CropRounding = "down"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"the size must be positive, it is {self.height} x {self.width} pixels")
        rows, columns = self.resized
        if self.resample == "swscale" and (rows < self.height or columns < self.width):
            raise ValueError(
                f"{self.height} x {self.width} pixels are cut out of a larger or equal picture, not out of "
                f"{rows} x {columns}"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, it is {self.std}")

    @property
    def resized(self) -> tuple[int, int]:
        """The size (height, width) that the picture covers or fills before the centre is cut out."""
        return self.resize_height or self.height, self.resize_width or self.width


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One figure of a model's card: the top-1 accuracy, 0..1, on a named test set."""

    dataset: str
    top1: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an imported model comes from."""

    source: str  # the SOURCE of ``tubelet models import``
    revision: str = ""  # a commit, or the URL or file of the weights; empty where the source has none
    imported_by: str = ""  # the version of tubelet that imported it


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model without its weights: the content of its model.toml, and its labels in logit order."""

    name: str
    version: str
    family: str  # a Family, or one that another package offers
    description: str
    licence: str
    labels: tuple[str, ...]
    sampling: Sampling
    preprocessing: Preprocessing
    accuracy: tuple[Accuracy, ...] = ()
    provenance: Provenance | None = None
    activation: OutputActivation = "softmax"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not _NAME.fullmatch(self.version):
            raise ValueError(
                f"a model's name and version are letters, digits and . _ - : {self.name!r} {self.version!r}"
            )
        if max(len(self.name), len(self.version)) > _NAME_LENGTH:
            raise ValueError(
                f"a model's name and version have at most {_NAME_LENGTH} characters each, these have "
                f"{len(self.name)} and {len(self.version)}"
            )
        if not self.labels or len(set(self.labels)) != len(self.labels):
            twice = next((each for each in self.labels if self.labels.count(each) > 1), "")
            raise ValueError(f"model {self.name}: labels must be distinct and at least one, {twice!r} is not")
        if odd := [label for label in self.labels if label.splitlines() != [label]]:
            raise ValueError(f"model {self.name}: a label must be one line of text, {odd[0]!r} is not")

    @property
    def version_key(self) -> tuple[tuple[bool, int, str], ...]:
        """A sort key that compares versions part by part, numbers as numbers: 1.10 is newer than 1.9."""
        parts = self.version.split(".")
        return tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)
