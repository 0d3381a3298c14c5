"""Averages the logits of windows into the labels of segments and of the whole video.

K classes.
"""

from collections.abc import Iterator

import numpy as np

from tubelet.service.types.plan import Plan
from tubelet.service.types.result import Activation, Label, Segment


class SegmentAssembler:
    """Collects the logits of windows, in the order of time, and yields a segment with its last window."""

    def __init__(
        self,
        plan: Plan,
        labels: tuple[str, ...],
        top_k: int,
        score_threshold: float,
        activation: Activation = Activation.SOFTMAX,
    ) -> None:
        self._plan = plan
        self._activation = activation
        self._labels = labels
        self._top_k = top_k
        self._score_threshold = score_threshold
        self._grids = plan.views(0)  # over the range whose segments come next
        self._segment = 0
        self._units = 0  # known to be in the grid so far
        self._windows: dict[
            tuple[int, int], np.ndarray
        ] = {}  # by grid and window, as long as later segments need them
        self._sum = np.zeros(len(labels))
        self._count = 0

    def add(self, grid: int, window: int, logits: np.ndarray) -> Iterator[Segment]:
        """Add the logits (K,) of ``window`` of ``grid``; yield the segments that are complete now."""
        if grid not in self._grids:
            self._grids, self._segment, self._units, self._windows = self._plan.views(grid), 0, 0, {}
        self._windows[grid, window] = logits
        self._units = self._plan.grids[grid].window_units(window).stop
        self._sum += logits
        self._count += 1
        yield from self._ready()

    def cut(self, plan: Plan) -> None:
        """Use ``plan``, which is cut to the end of the video, for the segments that were not yielded yet."""
        self._plan = plan
        self._grids = plan.views(self._grids.start)

    def finish(self) -> Iterator[Segment]:
        """Yield the segments that are complete without a further window, after a cut."""
        yield from self._ready()

    def video_labels(self) -> tuple[Label, ...]:
        """Return the labels of the whole video: those of the mean over all windows."""
        return self._best(self._sum / self._count)

    def _ready(self) -> Iterator[Segment]:
        grid = self._plan.grids[self._grids.start]  # all views of a range have the same segments
        while self._segment < grid.num_segments:
            windows = grid.segment_windows(self._segment)
            for known in [known for known in self._windows if known[1] < windows.start]:
                del self._windows[known]
            if (self._grids[-1], windows[-1]) not in self._windows:
                return
            if self._plan.is_unbounded and not grid.is_settled(self._segment, self._units):
                return
            needed = [self._windows[view, window] for view in self._grids for window in windows]
            logits = np.mean(needed, axis=0, dtype=float)
            start_ns, end_ns = grid.segment_range_ns(self._segment)
            self._segment += 1
            yield Segment(start_ns, end_ns, self._best(logits), self._activation)

    def _best(self, logits: np.ndarray) -> tuple[Label, ...]:
        scores = _SCORES[self._activation](logits)
        order = np.argsort(-logits, kind="stable")[: self._top_k]
        return tuple(
            Label(self._labels[index], float(scores[index]))
            for index in order
            if scores[index] >= self._score_threshold
        )


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    # 1 / (1 + exp(-logit)), which would overflow for logits far below zero.
    return np.exp(-np.logaddexp(0, -logits))


_SCORES = {Activation.SOFTMAX: _softmax, Activation.SIGMOID: _sigmoid}
