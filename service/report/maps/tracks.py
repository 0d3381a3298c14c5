"""The maps of a video as tracks: which map is shown when, and on which scale.

M steps of a track, U time steps of a segment's map, R rows and C columns of a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tubelet.service.report.maps.heat import Scale, full_scale
from tubelet.service.report.maps.summary import steps_inside
from tubelet.service.types.explanation import MapQuestion, SegmentMap
from tubelet.service.types.video import Rectangle


@dataclass(frozen=True, slots=True, eq=False)
class MapTrack:
    """What is shown over the pictures of a video for one question: a map at each time.

    Numbers are in multiples of an even share: 1 is what each patch would have if the map were the same
    everywhere and always. Those of a difference are positive where the first label has more.
    """

    question: MapQuestion
    """The question; without a label, each segment's own best label was explained."""
    scale: Scale
    rectangle: Rectangle
    start_ns: np.ndarray = field(repr=False)
    """(M,) int64: steps are in the order of time, and do not overlap."""
    end_ns: np.ndarray = field(repr=False)
    patches: np.ndarray = field(repr=False)
    """(M, R, C) float32."""
    on_no_patch: np.ndarray = field(repr=False)
    """(M,) float32: the share of the whole segment's map, of which a step is a part."""
    labels: tuple[str, ...] = field(repr=False)
    """(M,): the label that each step explains; empty where it is none, or the same two for all."""
    is_cut: bool
    """Whether steps of a segment's map are left out, since they lie outside the segment."""

    @property
    def most(self) -> float:
        """The number that has the last colour of the scale."""
        return full_scale(self.patches)

    @property
    def over_time(self) -> np.ndarray:
        """How much each step has: (M,) float32, the mean over its patches."""
        return self.patches.mean(axis=(1, 2))

    def step_at(self, time_ns: int) -> int | None:
        """Return the step that is shown at a time; None if there is none."""
        step = int(np.searchsorted(self.end_ns, time_ns, side="right"))
        return step if step < len(self.end_ns) and self.start_ns[step] <= time_ns else None


def map_track(maps: Sequence[SegmentMap], question: MapQuestion) -> MapTrack:
    """Lay the maps of one question, one for each segment in the order of time, on a track.

    A step of a segment's map that lies outside the segment is not shown: another segment has a map for that
    time. The first and last steps are shown up to the segment's bounds.
    """
    parts = [_steps_of(each) for each in maps]
    return MapTrack(
        question,
        "shares",
        maps[0].rectangle,
        *(np.concatenate(column) for column in zip(*(part[:4] for part in parts), strict=True)),
        labels=tuple(label for part in parts for label in part[4]),
        is_cut=not all(steps_inside(each).all() for each in maps),
    )


def difference(first: MapTrack, second: MapTrack) -> MapTrack:
    """Subtract two tracks of one video: what speaks for the first label is positive."""
    question = replace(first.question, against=second.question.label)
    return replace(
        first,
        question=question,
        scale="difference",
        patches=first.patches - second.patches,
        on_no_patch=(first.on_no_patch + second.on_no_patch) / 2,
        labels=("",) * len(first.labels),
    )


def _steps_of(found: SegmentMap) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return the steps of a segment that are shown: starts, ends, patches, shares on no patch, labels."""
    start_ns, end_ns = found.segment.start_ns, found.segment.end_ns
    shown = steps_inside(found)
    starts, ends = found.start_ns[shown], found.end_ns[shown]
    if not len(starts):
        empty = np.empty(0, np.int64)
        return empty, empty, found.map[:0], np.empty(0, np.float32), []
    starts, ends = np.clip(starts, start_ns, None), np.clip(ends, None, end_ns)
    starts[0], ends[-1] = start_ns, end_ns
    patches = found.map[shown] * found.map.size
    on_no_patch = np.full(len(starts), found.on_no_patch, np.float32)
    return starts, ends, patches, on_no_patch, [found.question.label or ""] * len(starts)
