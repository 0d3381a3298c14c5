"""Window logits averaged into segments and into the video's answer; softmax, top k.

K classes.
"""

from collections.abc import Iterator

import numpy as np

from service.plan import Plan
from service.values import Label, Segment


class SegmentAssembler:
    """Takes the logits of windows in the order of time; gives a segment when its last window is in."""

    def __init__(self, plan: Plan, labels: tuple[str, ...], top_k: int, score_threshold: float) -> None:
        self._plan = plan
        self._labels = labels
        self._top_k = top_k
        self._score_threshold = score_threshold
        self._grid = 0
        self._segment = 0
        self._windows: dict[int, np.ndarray] = {}  # those of the grid that later segments still need
        self._sum = np.zeros(len(labels))
        self._count = 0

    def add(self, grid: int, window: int, logits: np.ndarray) -> Iterator[Segment]:
        """Logits (K,) of the next window."""
        if grid != self._grid:
            self._grid, self._segment, self._windows = grid, 0, {}
        self._windows[window] = logits
        self._sum += logits
        self._count += 1
        yield from self._ready(last_window=window)

    def cut(self, plan: Plan) -> None:
        """The video ended early: what is not given yet follows this plan."""
        self._plan = plan

    def finish(self) -> Iterator[Segment]:
        """What a cut left without a window of its own."""
        yield from self._ready(last_window=self._plan.grids[self._grid].num_windows - 1)

    def video_labels(self) -> tuple[Label, ...]:
        """The labels of the mean over all windows."""
        return self._best(self._sum / self._count)

    def _ready(self, last_window: int) -> Iterator[Segment]:
        grid = self._plan.grids[self._grid]
        while self._segment < grid.num_segments:
            needed = grid.segment_windows(self._segment)
            for window in [known for known in self._windows if known < needed.start]:
                del self._windows[window]
            if needed[-1] > last_window:
                return
            logits = np.mean([self._windows[window] for window in needed], axis=0, dtype=float)
            start_ns, end_ns = grid.segment_range_ns(self._segment)
            self._segment += 1
            yield Segment(start_ns, end_ns, self._best(logits))

    def _best(self, logits: np.ndarray) -> tuple[Label, ...]:
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        order = np.argsort(-scores, kind="stable")[: self._top_k]
        return tuple(
            Label(self._labels[index], float(scores[index]))
            for index in order
            if scores[index] >= self._score_threshold
        )
