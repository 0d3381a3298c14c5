"""Neighbouring segments with the same best label, merged into one line of text."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tubelet.service.types.result import Label, Segment


@dataclass(frozen=True, slots=True)
class MergedSegment:
    """Neighbours as one line: their time range, and their best label (or None) with its mean score."""

    start_ns: int
    end_ns: int
    best: Label | None
    lowest: float
    highest: float
    segments: int


Line = Segment | MergedSegment


class SegmentMerger:
    """Merges segments that come in the order of time into lines.

    Neighbours with the same best label become one line; a segment without such neighbours stays as it is.
    """

    def __init__(self) -> None:
        self._parts: list[Segment] = []

    def add(self, segment: Segment) -> Line | None:
        """Add a segment; if it begins a new line, return the completed one before it."""
        done = None if self._joins(segment) else self.finish()
        self._parts.append(segment)
        return done

    def finish(self) -> Line | None:
        """Return the last line; None if there is none."""
        parts, self._parts = self._parts, []
        if len(parts) < 2:
            return parts[0] if parts else None
        return _merged(parts)

    def _joins(self, segment: Segment) -> bool:
        """Return whether the segment continues the current line."""
        last = self._parts[-1] if self._parts else None
        return last is not None and last.end_ns == segment.start_ns and _best(last) == _best(segment)


def merge_segments(segments: Iterable[Segment]) -> Iterator[Line]:
    """Yield the segments as lines, with equal neighbours merged."""
    merger = SegmentMerger()
    for segment in segments:
        if (done := merger.add(segment)) is not None:
            yield done
    if (done := merger.finish()) is not None:
        yield done


def _best(segment: Segment) -> str | None:
    """Return the best label of a segment; None if it has no labels."""
    return segment.labels[0].name if segment.labels else None


def _merged(parts: list[Segment]) -> MergedSegment:
    """Merge two or more segments; the mean score is weighted by their lengths."""
    start_ns, end_ns, name = parts[0].start_ns, parts[-1].end_ns, _best(parts[0])
    if name is None:
        return MergedSegment(start_ns, end_ns, None, 0.0, 0.0, len(parts))
    scores = [part.labels[0].score for part in parts]
    lengths_ns = [part.end_ns - part.start_ns for part in parts]
    mean = sum(score * length for score, length in zip(scores, lengths_ns, strict=True)) / sum(lengths_ns)
    return MergedSegment(start_ns, end_ns, Label(name, mean), min(scores), max(scores), len(parts))
