"""Maps of the service against maps that ``tubelet.models`` makes of windows that are decoded by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch

from tests.support.preprocessing import preprocessing
from tests.support.videos import decode_file
from tubelet.models.explain.explain import explain
from tubelet.models.explain.explanation import Question
from tubelet.models.repository.repository import ModelStore
from tubelet.service.config.config import DecodeConfig, load_config
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.errors import MalformedOption, TubeletError
from tubelet.service.explanation_errors import (
    MapTooLarge,
    NotExplainable,
    NothingToExplain,
    SegmentTooLong,
)
from tubelet.service.pipeline import explanations
from tubelet.service.pipeline.kept_frames import KeptFrames
from tubelet.service.server.app import SAMPLE_CLIP
from tubelet.service.server.local import LocalPipeline
from tubelet.service.types.embeddings import EmbeddingLevel
from tubelet.service.types.explanation import ExplainedVideo, ExplainEvent, ExplainOptions, SegmentMap
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.request import Options, Sliding, Views, WholeVideo
from tubelet.service.types.result import Classification, Segment, ignore_event
from tubelet.service.types.video import NS_PER_S, UnitFrames

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENTRY = ModelStore().find("camera-motion")
SAMPLE = Path(str(SAMPLE_CLIP))
FIRST_S = ((0, 3 * NS_PER_S),)  # windows of 2 s every second: at 0 and 1 s


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pipeline() -> AsyncIterator[LocalPipeline]:
    async with LocalPipeline(load_config(None, decode={"workers": 1}, engine={"device": "cpu"})) as pipeline:
        yield pipeline


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def by_hand() -> list[torch.Tensor]:
    """The windows of the first three seconds: 2 of (S, t, H, W, C)."""
    plan = Plan((SamplingGrid(0, 3 * NS_PER_S, 2 * NS_PER_S, 4, 4, 2),))
    async with DecodePool(DecodeConfig(workers=1)) as pool, pool.session() as session:
        _, units, _ = await decode_file(session, SAMPLE, plan, ENTRY.spec.preprocessing)
    return [torch.from_numpy(np.stack([units[0, first + unit] for unit in range(4)])) for first in (0, 2)]


async def chunks() -> AsyncIterator[bytes]:
    """Yield the sample clip, 16 s long."""
    yield SAMPLE.read_bytes()


async def explained(pipeline: LocalPipeline, options: Options, **asked: Any) -> ExplainedVideo:
    """Explain the sample clip."""
    maps: list[SegmentMap] = []

    async def keep(event: ExplainEvent) -> None:
        if isinstance(event, SegmentMap):
            maps.append(event)

    answer = await pipeline.explain(chunks(), options, ExplainOptions(**asked), keep)
    return ExplainedVideo(answer, tuple(maps))


async def classified(pipeline: LocalPipeline, options: Options) -> Classification:
    return await pipeline.classify(chunks(), options, ignore_event)


def assert_same(one: Segment, other: Segment) -> None:
    """Compare segments of which one is of the copy in float32, the other of the served model."""
    assert (one.start_ns, one.end_ns) == (other.start_ns, other.end_ns)
    scores = {label.name: label.score for label in other.labels}
    for label in one.labels[:1]:  # others may change places
        assert label.score == pytest.approx(scores[label.name], abs=2e-2)


def mean(maps: list[np.ndarray], stride: int, windows: list[int]) -> np.ndarray:
    """Average maps of windows of 4 units every ``stride`` units, those of ``windows``, by unit and patch."""
    total = np.zeros((4 + stride * (windows[-1] - windows[0]), *maps[0].shape[1:]))
    for window in windows:
        start = stride * (window - windows[0])
        total[start : start + 4] += maps[window]
    return total / len(windows)


async def test_a_segments_map_is_the_mean_of_its_windows_by_unit_and_patch(
    pipeline: LocalPipeline, by_hand: list[torch.Tensor]
) -> None:
    labels = ENTRY.spec.labels[:2]
    found = await explained(pipeline, Options(ranges_ns=FIRST_S), labels=labels)
    model = ENTRY.load()
    # The three segments of a second see windows 0, both, 1.
    assert [(each.segment.start_s, each.question.label) for each in found.maps] == [
        (second, label) for second in (0, 1, 2) for label in labels
    ]
    for each, (windows, start_s) in zip(
        found.maps, [(w, s) for w, s in (([0], 0.0), ([0, 1], 0.0), ([1], 1.0)) for _ in labels], strict=True
    ):
        question = Question("relevance", each.question.label)
        alone = [explain(model, ENTRY.spec, window, question) for window in by_hand]
        expected = mean([one.map.numpy() for one in alone], 2, windows)
        np.testing.assert_allclose(each.map, expected, atol=1e-6)
        np.testing.assert_allclose(
            each.on_no_patch, np.mean([alone[window].on_no_patch for window in windows]), atol=1e-6
        )
        assert each.map.sum() + each.on_no_patch == pytest.approx(1, abs=1e-5)
        units = len(expected)
        np.testing.assert_allclose(each.start_s, start_s + 0.5 * np.arange(units))
        np.testing.assert_allclose(each.end_s, start_s + 0.5 * np.arange(1, units + 1))
    assert found.classification.segments == tuple(each.segment for each in found.maps[::2])
    assert found.classification.stage_seconds["explain"] > 0


async def test_neither_other_videos_nor_the_cache_change_a_map(pipeline: LocalPipeline) -> None:
    """The served model is packed and batches videos; its cache has all units from the second call on."""
    options = Options(ranges_ns=FIRST_S)
    alone = await explained(pipeline, options, best=2)
    others = [asyncio.create_task(classified(pipeline, Options())) for _ in range(6)]
    beside = await explained(pipeline, options, best=2)
    await asyncio.gather(*others)
    cached = await explained(pipeline, options, best=2)
    for other in (beside, cached):
        assert [each.question for each in other.maps] == [each.question for each in alone.maps]
        for one, each in zip(other.maps, alone.maps, strict=True):
            np.testing.assert_allclose(one.map, each.map, atol=1e-6)


async def test_segments_and_labels_are_those_of_classify(pipeline: LocalPipeline) -> None:
    for windowing in (WholeVideo(), Sliding.of_seconds(stride_s=2), Views(clips=2)):
        options = Options(windowing=windowing)
        found = await explained(pipeline, options, method="rollout")
        answer = await classified(pipeline, options)
        assert found.classification.segments == tuple(dict.fromkeys(each.segment for each in found.maps))
        for one, other in zip(found.classification.segments, answer.segments, strict=True):
            assert_same(one, other)


async def test_views_have_a_map_each_at_their_place_and_time(pipeline: LocalPipeline) -> None:
    found = await explained(pipeline, Options(windowing=Views(clips=2, crops=3)), method="attention")
    assert [each.view for each in found.maps] == list(range(6))
    lefts = [each.rectangle.left for each in found.maps]
    assert lefts[:3] == lefts[3:] == sorted(lefts[:3])
    assert (lefts[0], found.maps[2].rectangle.right) == (0, 1)
    assert [each.start_s[0] for each in found.maps] == [0] * 3 + [14] * 3


async def test_a_long_segment_has_the_windows_of_its_range(pipeline: LocalPipeline) -> None:
    (found,) = (await explained(pipeline, Options(windowing=WholeVideo()), method="rollout")).maps
    assert (found.start_s[0], found.end_s[-1]) == (0, 16)
    np.testing.assert_array_equal(found.start_ns[1:], found.end_ns[:-1])


REFUSED: list[tuple[dict[str, Any], dict[str, Any], type[TubeletError], str, str]] = [
    ({}, {"labels": ("flying",)}, NotExplainable, "UNKNOWN_LABEL", "no label 'flying'"),
    ({}, {"against": "static"}, NotExplainable, "LABEL_MISSING", "compared with no other"),
    ({}, {"labels": ("static",), "against": "static"}, NotExplainable, "SAME_LABEL", "itself"),
    ({}, {"method": "attention", "layer": 99}, NotExplainable, "LAYER_OUT_OF_RANGE", "no layer 99"),
    ({}, {"method": "attention", "head": -1}, NotExplainable, "HEAD_OUT_OF_RANGE", "no head -1"),
    ({}, {"layer": 0}, NotExplainable, "NOT_FOR_METHOD", "takes no layer: only attention does"),
    ({}, {"method": "rollout", "labels": ("static",)}, NotExplainable, "NOT_FOR_METHOD", "labels belong to"),
    ({}, {"method": "magic"}, MalformedOption, "MALFORMED_OPTION", "'magic'"),
    ({}, {"labels": ("static",) * 21}, MalformedOption, "MALFORMED_OPTION", "1 to 20"),
    ({}, {"best": 0}, MalformedOption, "MALFORMED_OPTION", "0 best labels"),
    ({"embeddings": EmbeddingLevel.UNIT}, {}, MalformedOption, "MALFORMED_OPTION", "no embeddings"),
]


@pytest.mark.parametrize(("options", "asked", "error", "reason", "said"), REFUSED)
async def test_questions_are_refused_before_a_byte_is_read(
    pipeline: LocalPipeline,
    options: dict[str, Any],
    asked: dict[str, Any],
    error: type[TubeletError],
    reason: str,
    said: str,
) -> None:
    async def no_chunks() -> AsyncIterator[bytes]:
        raise AssertionError("the video is read")
        yield b""

    async def ignore(_: ExplainEvent) -> None:
        """Take an event."""

    with pytest.raises(error, match=said) as refused:
        await pipeline.explain(no_chunks(), Options(**options), ExplainOptions(**asked), ignore)
    assert refused.value.reason == reason
    assert refused.value.before_work


async def test_a_video_without_a_label_to_explain_is_an_error(pipeline: LocalPipeline) -> None:
    with pytest.raises(NothingToExplain, match="score_threshold 1") as refused:
        await explained(pipeline, Options(score_threshold=1, ranges_ns=FIRST_S))
    assert refused.value.reason == "NO_SEGMENT"


async def test_maps_for_more_than_a_message_are_refused(
    pipeline: LocalPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "MAX_MAP_BYTES", 1024)
    with pytest.raises(MapTooLarge, match="map of 16 x 6 x 6") as refused:
        await explained(pipeline, Options(windowing=WholeVideo()), method="rollout")
    assert refused.value.reason == "MAP_TOO_LARGE"


@pytest.mark.parametrize(("minutes", "fits"), [(1, True), (2, False)])
async def test_segments_for_more_than_the_memory_are_refused(minutes: int, fits: bool) -> None:
    """600 frames of 224 x 224 pixels are 86 MiB, 1,200 are 172."""
    end_ns = minutes * 60 * NS_PER_S
    whole = SamplingGrid(0, end_ns, end_ns, 1, 600 * minutes, 600 * minutes, one_segment=True)
    sliding = SamplingGrid(0, 86_400 * NS_PER_S, 10 * NS_PER_S, 1, 100, 50)
    frames = KeptFrames(100 << 20, lambda units: None)
    frames.use_plan(Plan((sliding,), is_unbounded=True), preprocessing(224, 224, "crop"))
    with nullcontext() if fits else pytest.raises(SegmentTooLong, match="take 172 MiB"):
        frames.use_plan(Plan((whole,)), preprocessing(224, 224, "crop"))


async def test_decoding_waits_until_frames_are_dropped() -> None:
    grid = SamplingGrid(0, 100 * NS_PER_S, 2 * NS_PER_S, 1, 2, 1)
    size = preprocessing(1024, 1024, "crop")  # 3 MiB a frame; a segment needs 6, and 16 MiB more are kept
    frames = KeptFrames(64 << 20, lambda units: None)
    frames.use_plan(Plan((grid,)), size)
    pixels = np.zeros((1, 1024, 1024, 3), np.uint8)
    units = [UnitFrames(0, unit, pixels, lambda: None) for unit in range(13)]
    for unit in units[:12]:
        await asyncio.wait_for(frames.keep(unit), 10)
    waiting = asyncio.create_task(frames.keep(units[12]))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    frames.drop(range(1), 1)
    await asyncio.wait_for(waiting, 10)
    assert frames.window(0, range(11, 13)).shape == (2, 1, 1024, 1024, 3)
