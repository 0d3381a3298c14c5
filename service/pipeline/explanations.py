"""Turns the segments of a video into maps of what the model looked at: the means of their windows' maps.

S units in a window, U time steps, R rows and C columns of a map.
"""

from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
from torch import Tensor

from tubelet.models.explain.explanation import Explanation
from tubelet.models.explain.occlusion import Parts
from tubelet.models.spec import Preprocessing
from tubelet.service.decode.pixels.geometry import seen_rectangle
from tubelet.service.explanation_errors import MapTooLarge
from tubelet.service.pipeline.explain_question import questions_of
from tubelet.service.pipeline.kept_frames import KeptFrames
from tubelet.service.pipeline.segments import SegmentAggregator
from tubelet.service.types.explanation import ExplainEvent, ExplainOptions, MapQuestion, SegmentMap
from tubelet.service.types.plan import SamplingGrid
from tubelet.service.types.result import Event, Progress, Segment
from tubelet.service.types.video import VideoMetadata

MAX_MAP_BYTES = 2 << 20
"""Most bytes of a map: many clients take 4 MiB in a message."""

ExplainWindow = Callable[[Tensor, MapQuestion], Awaitable[Explanation]]
"""Explains a window (S, t, H, W, C) uint8."""


class SegmentExplainer:
    """Makes the maps of one video, segment by segment, in the order of time.

    ``segments`` tells the plan and the metadata. ``parts`` is how maps are cut: the steps of a unit, rows,
    columns. ``frames`` takes the units; those of a segment have at most ``frame_bytes``. ``has_found`` says
    whether there was a map.
    """

    def __init__(
        self,
        asked: ExplainOptions,
        preprocessing: Preprocessing,
        parts: Parts,
        segments: SegmentAggregator,
        frame_bytes: int,
        explain: ExplainWindow,
    ) -> None:
        self.frames = KeptFrames(frame_bytes, self._check_units)
        self.has_found = False
        self._asked = asked
        self._preprocessing = preprocessing
        self._parts = parts
        self._segments = segments
        self._explain = explain
        # By grid, window and question, as long as later segments need them.
        self._known: dict[tuple[int, int, MapQuestion], Explanation] = {}

    async def events(self, event: Event) -> AsyncIterator[ExplainEvent]:
        """Yield the maps of a segment in its place, all other events as they are.

        Raises:
            MapTooLarge: the segment has too many time steps for one message.
        """
        match event:
            case Segment():
                async for found in self._maps(event):
                    self.has_found = True
                    yield found
            case VideoMetadata() | Progress():
                yield event

    async def _maps(self, segment: Segment) -> AsyncIterator[SegmentMap]:
        """Yield the maps of the next segment."""
        plan = self._segments.plan
        views = plan.views(bisect_right(plan.grids, segment.start_ns, key=lambda grid: grid.start_ns) - 1)
        grid = plan.grids[views.start]
        number = bisect_left(
            range(grid.num_segments), segment.start_ns, key=lambda each: grid.segment_range_ns(each)[0]
        )
        metadata, windows = self._segments.metadata, grid.segment_windows(number)
        for question in questions_of(self._asked, segment):
            for view in views:
                of_view = plan.grids[view]
                found = [await self._window(view, of_view, window, question) for window in windows]
                patches, start_ns, end_ns = self._mean(of_view, windows, found)
                yield SegmentMap(
                    segment,
                    question,
                    patches,
                    float(np.mean([each.on_no_patch for each in found])),
                    start_ns,
                    end_ns,
                    seen_rectangle(self._preprocessing, of_view.crop, metadata.width, metadata.height),
                    view=view - views.start,
                    runs=sum(each.runs for each in found),
                    steps_left_out=sum(each.steps_left_out for each in found),
                )
        self._forget(views, grid, number + 1)

    async def _window(self, view: int, grid: SamplingGrid, window: int, question: MapQuestion) -> Explanation:
        """Return the map of one window, which is computed once."""
        key = (view, window, question)
        if key not in self._known:
            pixels = self.frames.window(view, grid.window_units(window))
            self._known[key] = await self._explain(pixels, question)
        return self._known[key]

    def _mean(
        self, grid: SamplingGrid, windows: range, found: list[Explanation]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Average the maps of ``windows`` by unit and patch: -> map (U, R, C), start_ns (U,), end_ns (U,)."""
        first, steps = grid.window_start(windows[0]), self._parts.steps
        units = range(first, grid.window_units(windows[-1]).stop)
        shape = (len(units) * steps, self._parts.rows, self._parts.columns)
        _check_size(shape)
        total = np.zeros(shape)
        for window, explanation in zip(windows, found, strict=True):
            start = (grid.window_start(window) - first) * steps
            total[start : start + grid.units_per_window * steps] += explanation.map.numpy()
        bounds = [_step_start_ns(grid, unit, step, steps) for unit in units for step in range(steps)]
        times_ns = np.array([*bounds, grid.unit_start_ns(units.stop)], np.int64)
        return (total / len(windows)).astype(np.float32), times_ns[:-1], times_ns[1:]

    def _check_units(self, units: int) -> None:
        """Check that a map of this many units fits into one message."""
        _check_size((units * self._parts.steps, self._parts.rows, self._parts.columns))

    def _forget(self, views: range, grid: SamplingGrid, segment: int) -> None:
        """Forget what no segment from number ``segment`` on needs."""
        is_last = segment >= grid.num_segments
        # One window more: where the frames end early, the next segment is shorter, and its middle earlier.
        window = grid.num_windows if is_last else max(0, grid.segment_windows(segment).start - 1)
        self.frames.drop(views, None if is_last else grid.window_start(window))
        for key in [key for key in self._known if key[0] < views.start or key[1] < window]:
            del self._known[key]


def _check_size(shape: tuple[int, int, int]) -> None:
    """Check that a map (U, R, C) fits into one message.

    Raises:
        MapTooLarge: it does not.
    """
    size = 4 * shape[0] * shape[1] * shape[2]
    if size > MAX_MAP_BYTES:
        raise MapTooLarge(
            f"a segment's map of {' x '.join(map(str, shape))} has {size / (1 << 20):.1f} MiB, the limit is "
            f"{MAX_MAP_BYTES >> 20} MiB; ask for shorter segments: sliding windows, or ranges",
            limit=MAX_MAP_BYTES,
            value=size,
        )


def _step_start_ns(grid: SamplingGrid, unit: int, step: int, steps: int) -> int:
    """Return the start of a time step of ``unit``, which is divided into ``steps`` equal ones."""
    start_ns, end_ns = grid.unit_start_ns(unit), grid.unit_start_ns(unit + 1)
    return start_ns + (end_ns - start_ns) * step // steps
