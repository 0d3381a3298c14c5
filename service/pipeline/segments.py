"""Averages the logits of windows into the labels of segments and of the whole video.

K classes.
"""

from collections.abc import Iterator
from time import monotonic

import numpy as np

from tubelet.service.engine.served_model import ServedModel
from tubelet.service.metrics import RequestTimings
from tubelet.service.pipeline.embeddings import EmbeddingCollector
from tubelet.service.pipeline.planner import stride_warnings
from tubelet.service.pipeline.windows import ClassifiedWindow, PlanCut, Planned, WindowEvent
from tubelet.service.types.plan import Plan
from tubelet.service.types.request import Options
from tubelet.service.types.result import Activation, Classification, Event, Label, Progress, Segment
from tubelet.service.types.video import NS_PER_S, DecodeSummary, VideoMetadata

_PROGRESS_INTERVAL_S = 0.5


class SegmentAggregator:
    """Turns the events of a window stream into what the client gets: metadata, segments, progress, answer.

    With ``options.embeddings``, also the vectors.
    """

    def __init__(self, model: ServedModel, options: Options) -> None:
        self._spec = model.spec
        self._fingerprint = model.fingerprint
        self._options = options
        self._embeddings = EmbeddingCollector(options, model) if options.embeddings else None
        self._planned: Planned | None = None
        self._assembler: SegmentAssembler
        self._segments: list[Segment] = []
        self._summary: DecodeSummary
        self._last_progress_at = monotonic()

    def add(self, event: WindowEvent) -> Iterator[Event]:
        """Take the next event of the stream, and yield what the client gets then."""
        match event:
            case Planned(metadata, plan):
                if self._planned is None:
                    yield metadata
                self._planned = event
                activation = Activation(self._spec.activation)
                self._assembler = SegmentAssembler(plan, self._spec.labels, self._options, activation)
                if self._embeddings:
                    self._embeddings.use_plan(plan)
            case ClassifiedWindow(grid, window, decoded_ns, logits):
                if self._embeddings:
                    yield from self._embeddings.add(event)
                if logits is not None:
                    yield from self._keep(self._assembler.add(grid, window, logits))
                if monotonic() - self._last_progress_at >= _PROGRESS_INTERVAL_S:
                    self._last_progress_at = monotonic()
                    yield self._progress(decoded_ns)
            case PlanCut(plan):
                self._assembler.cut(plan)
                if self._embeddings:
                    self._embeddings.use_plan(plan)
            case DecodeSummary():
                self._summary = event
                yield from self._keep(self._assembler.finish())
                if self._embeddings:
                    yield from self._embeddings.finish()

    @property
    def plan(self) -> Plan:
        """The plan of the segments that come next, once the video is planned."""
        return self._assembler.plan

    @property
    def metadata(self) -> VideoMetadata:
        """What is known of the video since it was planned."""
        assert self._planned is not None
        return self._planned.metadata

    def classification(self, timings: RequestTimings) -> Classification:
        """Return the answer, after the last event of the stream."""
        spec, summary, metadata = self._spec, self._summary, self._summary.metadata
        rounded = stride_warnings(metadata.duration_ns, spec.sampling, self._options)
        return Classification(
            metadata=metadata,
            model=spec.name,
            version=spec.version,
            segments=tuple(self._segments),
            labels=self._assembler.video_labels(),
            stage_seconds=dict(timings.seconds),
            warnings=metadata.warnings + summary.warnings + rounded,
            fetched_bytes=timings.fetched_bytes,
            max_frame_offset_ns=summary.max_frame_offset_ns,
            activation=Activation(spec.activation),
            fingerprint=self._fingerprint,
            thumbnails=summary.thumbnails,
        )

    def _keep(self, segments: Iterator[Segment]) -> Iterator[Segment]:
        for segment in segments:
            self._segments.append(segment)
            yield segment

    def _progress(self, decoded_ns: int) -> Progress:
        assert self._planned is not None
        total_ns = self._planned.plan.total_ns
        if self._planned.plan.is_unbounded:
            # Only a header says how long the video is, and it may know no more than the first part.
            stated_ns = self._planned.metadata.duration_ns
            total_ns = stated_ns if decoded_ns <= stated_ns else 0
        return Progress(decoded_ns / NS_PER_S, total_ns / NS_PER_S)


class SegmentAssembler:
    """Collects the logits of windows, in the order of time, and yields a segment with its last window."""

    def __init__(
        self,
        plan: Plan,
        labels: tuple[str, ...],
        options: Options,
        activation: Activation = Activation.SOFTMAX,
    ) -> None:
        self.plan = plan
        self._labels = labels
        self._options = options
        self._activation = activation
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
            self._grids, self._segment, self._units, self._windows = self.plan.views(grid), 0, 0, {}
        self._windows[grid, window] = logits
        self._units = self.plan.grids[grid].window_units(window).stop
        self._sum += logits
        self._count += 1
        yield from self._ready()

    def cut(self, plan: Plan) -> None:
        """Use ``plan``, which is cut to the end of the video, for the segments that were not yielded yet."""
        self.plan = plan
        self._grids = plan.views(self._grids.start)

    def finish(self) -> Iterator[Segment]:
        """Yield the segments that are complete without a further window, after a cut."""
        yield from self._ready()

    def video_labels(self) -> tuple[Label, ...]:
        """Return the labels of the whole video: those of the mean over all windows; none without windows."""
        if not self._count:
            return ()
        return self._best(self._sum / self._count)

    def _ready(self) -> Iterator[Segment]:
        grid = self.plan.grids[self._grids.start]  # all views of a range have the same segments
        while self._segment < grid.num_segments:
            windows = grid.segment_windows(self._segment)
            for known in [known for known in self._windows if known[1] < windows.start]:
                del self._windows[known]
            if (self._grids[-1], windows[-1]) not in self._windows:
                return
            if self.plan.is_unbounded and not grid.is_settled(self._segment, self._units):
                return
            needed = [self._windows[view, window] for view in self._grids for window in windows]
            logits = np.mean(needed, axis=0, dtype=float)
            start_ns, end_ns = grid.segment_range_ns(self._segment)
            self._segment += 1
            yield Segment(start_ns, end_ns, self._best(logits), self._activation)

    def _best(self, logits: np.ndarray) -> tuple[Label, ...]:
        scores = _SCORES[self._activation](logits)
        order = np.argsort(-logits, kind="stable")[: self._options.top_k]
        return tuple(
            Label(self._labels[index], float(scores[index]))
            for index in order
            if scores[index] >= self._options.score_threshold
        )


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    # 1 / (1 + exp(-logit)), which would overflow for logits far below zero.
    return np.exp(-np.logaddexp(0, -logits))


_SCORES = {Activation.SOFTMAX: _softmax, Activation.SIGMOID: _sigmoid}
