"""Answers as rows of the tables ``videos`` and ``segments``.

D numbers in an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tubelet.service.batch.plan import BatchPlan
from tubelet.service.batch.source.items import Item
from tubelet.service.report.text import decodable
from tubelet.service.types.embeddings import Embeddings
from tubelet.service.types.request import Sliding
from tubelet.service.types.result import Classification, Label, Segment
from tubelet.service.types.video import NS_PER_S

Row = dict[str, Any]
"""The values of a row, by the names of its columns; a column without a value is left out."""

OK = "OK"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a video took: bytes read of its file, seconds of devices, seconds from start to end, attempts."""

    read_bytes: int = 0
    device_s: float = 0.0
    wall_s: float = 0.0
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class BatchFailure:
    """The error of a video; with ``may_retry``, a later run asks again by itself."""

    code: str
    reason: str
    message: str
    may_retry: bool = False


@dataclass(frozen=True, slots=True)
class VideoRows:
    """The rows of one video: its own, and those of its segments; ``failure`` is why it has no segments."""

    video: Row
    segments: list[Row] = field(default_factory=list)
    failure: BatchFailure | None = None

    @property
    def id(self) -> str:
        """The id of the video."""
        return self.video["id"]


def answer_rows(item: Item, plan: BatchPlan, answer: Classification, etag: str, cost: Cost) -> VideoRows:
    """Return the rows of a video that was classified, in the version ``etag``."""
    metadata = answer.metadata
    facts = {
        "etag": etag,
        "size_bytes": metadata.size_bytes,
        "container": metadata.container,
        "codec": metadata.codec,
        "width": metadata.width,
        "height": metadata.height,
        "fps": metadata.fps,
        "frames": metadata.frames,
        "duration_s": metadata.duration_s,
    }
    result = _labels(answer.labels) | {"warnings": list(map(decodable, answer.warnings)), "code": OK}
    video = _common(item, plan, cost) | facts | result | {"reason": "", "message": ""}
    segments = [
        {"id": item.id, "plan": plan.key, "start_s": each.start_s, "end_s": each.end_s} | _labels(each.labels)
        for each in answer.segments
    ]
    if answer.embeddings is not None:
        vectors = segment_vectors(answer.segments, answer.embeddings, is_dense=_is_dense(plan))
        for row, vector in zip(segments, vectors, strict=True):
            row["embedding"] = vector
    return VideoRows(video, segments)


def failure_rows(item: Item, plan: BatchPlan, failure: BatchFailure, cost: Cost) -> VideoRows:
    """Return the row of a video that could not be classified."""
    error = {"code": failure.code, "reason": failure.reason, "message": decodable(failure.message)}
    none = {"labels": [], "scores": [], "warnings": []}
    return VideoRows(_common(item, plan, cost) | {"etag": item.etag} | none | error, failure=failure)


def segment_vectors(segments: Sequence[Segment], windows: Embeddings, *, is_dense: bool) -> np.ndarray:
    """Return the mean of the vectors of each segment's windows: (segments, D) float32.

    Those are the windows over its middle, as for its labels, or, unless ``is_dense``, all inside it.
    """
    means = np.empty((len(segments), windows.vectors.shape[1]), np.float32)
    for number, segment in enumerate(segments):
        if is_dense:
            middle = (segment.start_ns + segment.end_ns) // 2
            own = (windows.start_ns <= middle) & (middle < windows.end_ns)
        else:
            own = (windows.start_ns < segment.end_ns) & (windows.end_ns > segment.start_ns)
        means[number] = windows.vectors[own].mean(axis=0, dtype=np.float64)
    return means


def _is_dense(plan: BatchPlan) -> bool:
    """Return whether segments are strides of a sliding window."""
    return isinstance(plan.options.windowing, Sliding)


def _common(item: Item, plan: BatchPlan, cost: Cost) -> Row:
    """Return the values that every row of a video has."""
    return {
        "id": item.id,
        "plan": plan.key,
        "uri": decodable(item.uri),
        "ranges": [[start / NS_PER_S, end / NS_PER_S] for start, end in item.ranges_ns],
        "model": plan.options.model,
        "version": plan.options.version,
        "fingerprint": plan.fingerprint,
        "read_bytes": cost.read_bytes,
        "device_s": cost.device_s,
        "wall_s": cost.wall_s,
        "attempts": cost.attempts,
        "finished_at": datetime.now(UTC).replace(tzinfo=None),
    }


def _labels(labels: Sequence[Label]) -> Row:
    """Return labels and scores as two lists."""
    return {"labels": [each.name for each in labels], "scores": [each.score for each in labels]}
