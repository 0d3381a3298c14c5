"""Neighbouring segments with the same best label, merged into one line of text."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tubelet.service.types.result import Label, Segment


@dataclass(frozen=True, slots=True)
class MergedSegment:
    """The time range of several segments, and their best label, if any, with the mean of its scores."""

    start_ns: int
    end_ns: int
    best: Label | None
    lowest: float
    highest: float
    segments: int


Line = Segment | MergedSegment


class SegmentMerger:
    """Takes segments in the order of time; gives back each line as soon as no more segments can join it.

    Neighbours join while their best label stays the same; a segment without equal neighbours stays as it is.
    """

    def __init__(self) -> None:
        self._parts: list[Segment] = []

    def add(self, segment: Segment) -> Line | None:
        """Add a segment; returns the line before it if it begins another."""
        done = None if self._joins(segment) else self.finish()
        self._parts.append(segment)
        return done

    def finish(self) -> Line | None:
        """The last line; None if there is none."""
        parts, self._parts = self._parts, []
        if len(parts) < 2:
            return parts[0] if parts else None
        return _merged(parts)

    def _joins(self, segment: Segment) -> bool:
        last = self._parts[-1] if self._parts else None
        return last is not None and last.end_ns == segment.start_ns and _best(last) == _best(segment)


def merge_segments(segments: Iterable[Segment]) -> Iterator[Line]:
    """The segments, with equal neighbours merged."""
    merger = SegmentMerger()
    for segment in segments:
        if (done := merger.add(segment)) is not None:
            yield done
    if (done := merger.finish()) is not None:
        yield done


def _best(segment: Segment) -> str | None:
    return segment.labels[0].name if segment.labels else None


def _merged(parts: list[Segment]) -> MergedSegment:
    """The line of at least two parts; the mean is weighted by their lengths."""
    start_ns, end_ns, name = parts[0].start_ns, parts[-1].end_ns, _best(parts[0])
    if name is None:
        return MergedSegment(start_ns, end_ns, None, 0.0, 0.0, len(parts))
    scores = [part.labels[0].score for part in parts]
    lengths_ns = [part.end_ns - part.start_ns for part in parts]
    mean = sum(score * length for score, length in zip(scores, lengths_ns, strict=True)) / sum(lengths_ns)
    return MergedSegment(start_ns, end_ns, Label(name, mean), min(scores), max(scores), len(parts))
