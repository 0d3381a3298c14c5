"""Merging of neighbouring segments with the same best label."""

import pytest

from tubelet.service.report.merged_segments import Line, MergedSegment, SegmentMerger, merge_segments
from tubelet.service.types.result import Label, Segment


def segment(start: int, end: int, *labels: tuple[str, float]) -> Segment:
    return Segment(start, end, tuple(Label(name, score) for name, score in labels))


A1, A2, A3 = segment(0, 10, ("a", 0.5), ("b", 0.4)), segment(10, 20, ("a", 0.7)), segment(20, 24, ("a", 0.9))
B = segment(24, 30, ("b", 0.6), ("a", 0.3))
LATER = segment(40, 50, ("b", 0.6))
NONE1, NONE2 = segment(50, 60), segment(60, 70)


@pytest.mark.parametrize(
    ("segments", "lines"),
    [
        ([], []),
        ([A1], [A1]),
        ([A1, B.__class__(10, 30, B.labels)], [A1, B.__class__(10, 30, B.labels)]),
        ([A1, A2, A3, B], [MergedSegment(0, 24, Label("a", 0.65), 0.5, 0.9, 3), B]),
        ([B, LATER], [B, LATER]),  # with a gap between them, as ranges leave it
        ([LATER, NONE1, NONE2], [LATER, MergedSegment(50, 70, None, 0.0, 0.0, 2)]),
    ],
)
def test_neighbours_with_equal_labels_are_merged(segments: list[Segment], lines: list[Line]) -> None:
    assert list(merge_segments(segments)) == lines


def test_merged_line_ends_when_the_label_changes() -> None:
    merger = SegmentMerger()
    assert merger.add(A1) is None
    assert merger.add(A2) is None
    done = merger.add(segment(20, 30, ("b", 0.9)))
    assert isinstance(done, MergedSegment)
    assert (done.start_ns, done.end_ns, done.segments) == (0, 20, 2)
