"""Logits of windows become segments and the labels of the video."""

import numpy as np
import pytest
import torch

from tubelet.models.repository.repository import ModelStore
from tubelet.service.engine.batch_tuner import BatchTuning
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.metrics import Metrics, RequestTimings
from tubelet.service.pipeline import segments as segments_module
from tubelet.service.pipeline.segments import SegmentAggregator, SegmentAssembler
from tubelet.service.pipeline.windows import ClassifiedWindow, PlanCut, Planned, WindowEvent
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.request import Options
from tubelet.service.types.result import Activation, Progress, Segment
from tubelet.service.types.video import NS_PER_S, DecodeSummary, VideoMetadata

LABELS = ("a", "b", "c")
SPEC = ModelStore().find("camera-motion").spec


def plan(end_ns: int, *, one_segment: bool = False) -> Plan:
    """Return a plan with units of 1 ns and windows of 4 units every 2 units."""
    return Plan((SamplingGrid(0, end_ns, 4, 1, 4, 2, one_segment=one_segment),))


def logits(*scores: float) -> np.ndarray:
    return np.log(np.array(scores))


def test_segment_is_yielded_with_its_last_window() -> None:
    assembler = SegmentAssembler(plan(8), LABELS, Options(top_k=1))
    given = [
        [(segment.start_ns, segment.end_ns) for segment in assembler.add(0, window, logits(0.5, 0.3, 0.2))]
        for window in range(3)
    ]
    assert given == [[(0, 2)], [(2, 4)], [(4, 6), (6, 8)]]


def test_scores_are_the_softmax_of_the_mean_logits() -> None:
    assembler = SegmentAssembler(plan(6), LABELS, Options(top_k=3))
    first = list(assembler.add(0, 0, np.array([2.0, 0.0, 0.0])))
    second = list(assembler.add(0, 1, np.array([0.0, 2.0, 0.0])))
    alone = np.exp([2, 0, 0]) / np.exp([2, 0, 0]).sum()
    both = np.exp([1, 1, 0]) / np.exp([1, 1, 0]).sum()
    assert [label.score for label in first[0].labels] == pytest.approx(sorted(alone, reverse=True))
    assert [label.score for label in second[0].labels] == pytest.approx(sorted(both, reverse=True))
    assert [label.name for label in second[1].labels] == ["b", "a", "c"]
    assert {label.name: label.score for label in assembler.video_labels()} == pytest.approx(
        dict(zip(LABELS, both, strict=True))
    )


def test_a_multi_label_models_scores_are_the_sigmoid_of_the_mean_logits() -> None:
    assembler = SegmentAssembler(plan(6), LABELS, Options(top_k=3), Activation.SIGMOID)
    first = list(assembler.add(0, 0, np.array([2.0, -800.0, 0.5])))
    second = list(assembler.add(0, 1, np.array([0.0, 20.0, 1.5])))
    alone, both = (torch.tensor(each).double().sigmoid() for each in ([2, -800, 0.5], [1, -390, 1]))
    assert [label.score for label in first[0].labels] == pytest.approx(alone[[0, 2, 1]].tolist())
    assert [label.name for label in second[1].labels] == ["b", "c", "a"]
    assert {segment.activation for segment in (*first, *second)} == {Activation.SIGMOID}
    assert [label.score for label in assembler.video_labels()] == pytest.approx(both[[0, 2, 1]].tolist())


def test_threshold_of_a_multi_label_model_leaves_several_labels_or_none() -> None:
    def names(*logits: float) -> list[str]:
        whole = plan(4, one_segment=True)
        assembler = SegmentAssembler(whole, LABELS, Options(top_k=3, score_threshold=0.6), Activation.SIGMOID)
        (segment,) = assembler.add(0, 0, np.array(logits))
        return [label.name for label in segment.labels]

    assert names(3.0, 2.0, -1.0) == ["a", "b"]
    assert names(-3.0, 0.0, -1.0) == []


def test_top_k_and_threshold_hide_labels() -> None:
    assembler = SegmentAssembler(plan(4, one_segment=True), LABELS, Options(top_k=2, score_threshold=0.4))
    (segment,) = assembler.add(0, 0, logits(0.5, 0.3, 0.2))
    assert [label.name for label in segment.labels] == ["a"]


def test_views_of_a_whole_video_are_one_segment() -> None:
    assembler = SegmentAssembler(plan(8, one_segment=True), LABELS, Options(top_k=1))
    assert [len(list(assembler.add(0, window, logits(1, 1, 1)))) for window in range(3)] == [0, 0, 1]


def test_overlapping_views_share_one_segment_of_their_mean() -> None:
    views = tuple(SamplingGrid(2, 12, 4, 1, 4, 4, one_segment=True, view_ns=view_ns) for view_ns in (2, 3, 8))
    assembler = SegmentAssembler(Plan((SamplingGrid(0, 2, 2, 1, 4, 4), *views)), LABELS, Options(top_k=3))
    assert [segment.end_ns for segment in assembler.add(0, 0, logits(1, 1, 1))] == [2]
    seen = [np.array([6.0, 0.0, 0.0]), np.array([0.0, 3.0, 0.0]), np.array([0.0, 0.0, 0.0])]
    assert [list(assembler.add(grid, 0, seen[grid - 1])) for grid in (1, 2)] == [[], []]
    (segment,) = assembler.add(3, 0, seen[2])
    assert (segment.start_ns, segment.end_ns) == (2, 12)
    mean = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    assert [label.score for label in segment.labels] == pytest.approx(list(mean))
    assert list(assembler.finish()) == []


def test_views_after_the_end_of_the_video_are_left_out() -> None:
    views = tuple(SamplingGrid(0, 12, 4, 1, 4, 4, one_segment=True, view_ns=view_ns) for view_ns in (0, 4, 8))
    assembler = SegmentAssembler(Plan(views), LABELS, Options(top_k=1))
    assert list(assembler.add(0, 0, logits(1, 1, 1))) == []
    cut = Plan(views).cut(7)
    assert cut is not None
    assembler.cut(cut)
    (segment,) = [*assembler.add(1, 0, logits(1, 1, 1)), *assembler.finish()]
    assert (segment.start_ns, segment.end_ns) == (0, 7)


def test_segments_of_a_shortened_video_cover_what_was_decoded() -> None:
    """Planned to 20 ns, decoded to 7: the last window moves to units 3..6, the last segment ends at 7."""
    assembler = SegmentAssembler(plan(20), LABELS, Options(top_k=1))
    segments = list(assembler.add(0, 0, logits(1, 1, 1))) + list(assembler.add(0, 1, logits(1, 1, 1)))
    assembler.cut(plan(7))
    segments += [*assembler.add(0, 2, logits(1, 1, 1)), *assembler.finish()]
    assert [(segment.start_ns, segment.end_ns) for segment in segments] == [(0, 2), (2, 4), (4, 6), (6, 7)]


def test_segments_are_finished_after_a_cut_without_a_new_window() -> None:
    assembler = SegmentAssembler(plan(20), LABELS, Options(top_k=1))
    segments = list(assembler.add(0, 0, logits(1, 1, 1)))
    assembler.cut(plan(4))
    segments += assembler.finish()
    assert [(segment.start_ns, segment.end_ns) for segment in segments] == [(0, 2), (2, 4)]


@pytest.fixture
def aggregator(monkeypatch: pytest.MonkeyPatch) -> SegmentAggregator:
    """An aggregator that reports progress after each window."""
    monkeypatch.setattr(segments_module, "_PROGRESS_INTERVAL_S", 0.0)
    model = ServedModel(
        SPEC, (), precision="fp32", fingerprint="", tuning=BatchTuning(1), max_batch_windows=1
    )
    return SegmentAggregator(model, Options())


def metadata(duration_ns: int) -> VideoMetadata:
    return VideoMetadata("matroska", "h264", 64, 48, 1.0, duration_ns, duration_ns, 1)


def window(number: int, decoded_ns: int) -> ClassifiedWindow:
    return ClassifiedWindow(0, number, decoded_ns, np.zeros(len(SPEC.labels)))


def test_events_follow_the_windows_and_the_answer_has_all_segments(aggregator: SegmentAggregator) -> None:
    """The video is planned again, as it is shorter than its header said; its metadata comes once."""
    end = DecodeSummary(7, 7, ("late frames",), metadata(7))
    stream: list[WindowEvent] = [Planned(metadata(20), plan(20)), Planned(metadata(7), plan(8))]
    stream += [window(0, 4), window(1, 6), PlanCut(plan(7)), window(2, 7), end]
    events = [[*aggregator.add(event)] for event in stream]
    assert [[type(event) for event in each] for each in events] == [
        [VideoMetadata],
        [],
        [Segment, Progress],
        [Segment, Progress],
        [],
        [Segment, Segment, Progress],
        [],
    ]
    answer = aggregator.classification(RequestTimings(Metrics(), SPEC.name))
    assert answer.segments == tuple(event for each in events for event in each if isinstance(event, Segment))
    assert (answer.metadata, answer.warnings) == (metadata(7), ("late frames",))


def test_total_is_unknown_once_more_is_decoded_than_the_header_said(aggregator: SegmentAggregator) -> None:
    unbounded = Plan(plan(20).grids, is_unbounded=True)
    stream: list[WindowEvent] = [Planned(metadata(5), unbounded), window(0, 4), window(1, 6)]
    events = [event for each in stream for event in aggregator.add(each)]
    found = [event for event in events if isinstance(event, Progress)]
    assert found == [Progress(4 / NS_PER_S, 5 / NS_PER_S), Progress(6 / NS_PER_S, 0)]
