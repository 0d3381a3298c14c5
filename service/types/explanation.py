"""Explanations: the question, and for each segment a map of what the model looked at, in space and time.

U time steps, R rows and C columns of a map.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

import numpy as np

from tubelet.service.types.result import Classification, Progress, Segment
from tubelet.service.types.video import NS_PER_S, Rectangle, VideoMetadata

ExplainMethod = Literal["relevance", "rollout", "attention", "occlusion"]
"""How a map is computed; models/README.md describes each."""
EXPLAIN_METHODS: tuple[ExplainMethod, ...] = get_args(ExplainMethod)
METHODS_OF_LABELS: tuple[ExplainMethod, ...] = ("relevance", "occlusion")
"""The methods that explain a label; maps of the others are the same for all labels."""
MAX_EXPLAINED = 20  # labels in each segment


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """What to explain of each segment, and how; which segments there are is said by ``Options``.

    Raises:
        TypeError: ``labels`` are not strings, or a number is no whole one; the message is a sentence.
    """

    method: ExplainMethod = "relevance"
    """``relevance`` and ``occlusion`` explain labels; ``rollout`` and ``attention`` depend on none."""
    labels: tuple[str, ...] = ()
    """The labels to explain, at most 20, a map each. Empty: the ``best`` ones of each segment."""
    best: int = 1
    """How many of the best labels of each segment are explained where ``labels`` names none, 1 to 20."""
    against: str | None = None
    """Explain how far the logit of each of ``labels`` is above that of this label; None: the logit itself."""
    layer: int | None = None
    """The layer of ``attention``, from 0. None: the last one that attends to patches."""
    head: int | None = None
    """The head of ``attention``, from 0. None: the mean over heads."""

    def __post_init__(self) -> None:
        to_labels(self.labels)
        _check_whole("best", self.best)
        for name, number in (("layer", self.layer), ("head", self.head)):
            if number is not None:
                _check_whole(name, number)


def to_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return ``labels`` as a tuple.

    Raises:
        TypeError: they are one string, whose letters would be taken for labels, or not strings.
    """
    if isinstance(labels, str):
        raise TypeError(f"labels is the string {labels!r}; it must be a list or tuple, such as ({labels!r},)")
    if not isinstance(labels, Iterable):
        raise TypeError(f"labels is {labels!r}; it must be a list or tuple of strings")
    found = tuple(labels)
    for each in found:
        if not isinstance(each, str):
            raise TypeError(f"labels holds {each!r}; all must be strings")
    return found


def _check_whole(name: str, number: object) -> None:
    """Check that ``number``, the value of ``name``, is a whole number: Python's or numpy's.

    Raises:
        TypeError: it is not.
    """
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise TypeError(f"{name} is {number!r}; it must be a whole number")


@dataclass(frozen=True, slots=True)
class MapQuestion:
    """The question that one map answers; the fields are those of ``ExplainOptions``."""

    method: ExplainMethod
    label: str | None = None  # None where the method depends on no label
    against: str | None = None
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SegmentMap:
    """What the model looked at in one segment: the mean of the maps of the segment's windows.

    ``map`` is at least 0, and sums to 1 with ``on_no_patch``. A window has no share in steps that it does not
    cover. With ``Views``, a segment has a map for each view.
    """

    segment: Segment
    """The segment with its labels, as ``classify`` gives them."""
    question: MapQuestion
    map: np.ndarray
    """(U, R, C) float32: the share of each time step and patch."""
    on_no_patch: float
    """The share that ends on class tokens. It is 1, and the map zero, where the method finds nothing."""
    start_ns: np.ndarray
    """(U,) int64: the start of each time step, in nanoseconds."""
    end_ns: np.ndarray
    """(U,) int64: its end. Steps are in the order of time."""
    rectangle: Rectangle
    """The part of the shown picture that the grid covers. Patch (r, c) is an equal part of it."""
    view: int = 0
    """The number of the view, from 0: the crops of the first clip first. 0 without ``Views``."""
    runs: int = 0
    """Forward passes of ``occlusion`` over one unit each."""
    steps_left_out: int = 0
    """Steps of ``occlusion`` whose share is spread evenly, since the runs did not suffice for its place."""

    def __post_init__(self) -> None:
        steps = {len(self.map), len(self.start_ns), len(self.end_ns)}
        if self.map.ndim != 3 or self.map.dtype != np.float32 or len(steps) != 1:
            raise ValueError(
                f"a map must be (U, R, C) float32 with U times: {self.map.shape} {self.map.dtype}, {steps}"
            )

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.map.shape))
        where = f"{self.segment.start_s:g} to {self.segment.end_s:g} s"
        return f"SegmentMap({where}, {self.question}, {shape}, {self.on_no_patch:.0%} on no patch)"

    @property
    def start_s(self) -> np.ndarray:
        """The start of each time step in seconds: (U,) float64."""
        return self.start_ns / NS_PER_S

    @property
    def end_s(self) -> np.ndarray:
        """The end of each time step in seconds: (U,) float64."""
        return self.end_ns / NS_PER_S


@dataclass(frozen=True, slots=True)
class ExplainedVideo:
    """The answer for one video with explanations: its classification, and the maps of its segments.

    ``maps`` are in the order of time; those of one segment in the order of the labels, then of the views.
    """

    classification: Classification
    maps: tuple[SegmentMap, ...]


ExplainEvent = VideoMetadata | Progress | SegmentMap
"""What is known of a video that is explained, before its classification."""
EmitExplained = Callable[[ExplainEvent], Awaitable[None]]
"""Takes the events of one video, one after another."""
