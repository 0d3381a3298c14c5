"""Embeddings over a real channel: the vectors that the model gives when it is run by hand."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from tests.support.running_server import Served, serving
from tests.support.sample_clip import panning_clip
from tests.support.videos import decode_file
from tubelet.models.repository.repository import ModelStore
from tubelet.service.client import AsyncClient, Client, ServerError
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.pipeline import embeddings as embeddings_module
from tubelet.service.rpc import embeddings as unary_module
from tubelet.service.server.app import SAMPLE_CLIP
from tubelet.service.types.embeddings import EmbeddingLevel, Embeddings, join
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.request import Options, Sliding, Views, WholeVideo, ranges_of_seconds
from tubelet.service.types.result import Classification
from tubelet.service.types.video import NS_PER_S
from tubelet.service.wire.answer import classification_from_proto
from tubelet.v1 import classification_pb2
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

ENTRY = ModelStore().find("camera-motion")
UNIT, WINDOW, VIDEO = EmbeddingLevel.UNIT, EmbeddingLevel.WINDOW, EmbeddingLevel.VIDEO


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A server that computes in float32, so that vectors can be compared with those of plain torch."""
    with serving(engine={"precision": "fp32"}) as server:
        yield server


@pytest.fixture(scope="module")
def by_hand() -> dict[EmbeddingLevel, np.ndarray]:
    """The vectors of the sample, 16 s in units of 0.5 s and windows of 2 s, from the model in plain torch."""

    async def decode() -> dict[tuple[int, int], np.ndarray]:
        plan = Plan((SamplingGrid(0, 16 * NS_PER_S, 2 * NS_PER_S, 4, 4, 2),))
        async with DecodePool(DecodeConfig(workers=1)) as pool, pool.session() as session:
            return (await decode_file(session, Path(str(SAMPLE_CLIP)), plan, ENTRY.spec.preprocessing))[1]

    found = asyncio.run(decode())
    model = ENTRY.load()
    with torch.inference_mode():
        units = model.encode(torch.from_numpy(np.stack([found[0, unit] for unit in range(32)])))
        windows = model.pool(torch.stack([units[first : first + 4] for first in range(0, 29, 2)]))
    return {UNIT: units.numpy(), WINDOW: windows.numpy(), VIDEO: windows.mean(0, keepdim=True).numpy()}


def vectors(answer: Classification) -> Embeddings:
    """Return the embeddings of an answer that has some."""
    assert answer.embeddings is not None
    return answer.embeddings


def test_vectors_are_those_of_the_model_alone(
    client: Client, sample: bytes, by_hand: dict[EmbeddingLevel, np.ndarray]
) -> None:
    plain = client.classify(sample)
    assert plain.embeddings is None
    starts_s = {UNIT: np.arange(32) / 2, WINDOW: np.arange(15.0), VIDEO: [0]}
    lengths_s = {UNIT: 0.5, WINDOW: 2, VIDEO: 16}
    for level, wanted in by_hand.items():
        answer = client.classify(sample, Options(embeddings=level))
        found = vectors(answer)
        assert found.vectors.dtype == np.float32
        np.testing.assert_allclose(found.vectors, wanted, atol=2e-4)
        np.testing.assert_array_equal(found.start_s, starts_s[level])
        np.testing.assert_array_equal(found.end_s, found.start_s + lengths_s[level])
        assert not found.view.any()
        assert (found.level, found.model, found.version) == (level, plain.model, plain.version)
        assert found.fingerprint == plain.fingerprint == ENTRY.fingerprint
        assert [(each.start_ns, each.labels[0].name) for each in answer.segments] == [
            (each.start_ns, each.labels[0].name) for each in plain.segments
        ]
        assert answer.labels[0].score == pytest.approx(plain.labels[0].score, abs=1e-4)


def test_only_vectors_cost_neither_labels_nor_segments(
    served: Served, client: Client, sample: bytes, by_hand: dict[EmbeddingLevel, np.ndarray]
) -> None:
    for level, wanted in by_hand.items():
        before = served.metric("tubelet_batch_windows_sum")
        answer = client.classify(sample, Options(embeddings=level, only_embeddings=True))
        assert (answer.labels, answer.segments) == ((), ())
        np.testing.assert_allclose(vectors(answer).vectors, wanted, atol=2e-4)
        # Vectors of units need no window at all.
        assert served.metric("tubelet_batch_windows_sum") - before == (0 if level is UNIT else 15)


def test_units_come_from_the_cache(served: Served, client: Client) -> None:
    clip, options = panning_clip(3.3), Options(embeddings=UNIT, only_embeddings=True)
    first = client.classify(clip, options)
    hits, misses = (
        served.metric("tubelet_unit_cache_lookups_total", outcome=outcome) for outcome in ("hit", "miss")
    )
    again = client.classify(clip, options)
    assert served.metric("tubelet_unit_cache_lookups_total", outcome="miss") == misses
    assert served.metric("tubelet_unit_cache_lookups_total", outcome="hit") == hits + len(vectors(again))
    np.testing.assert_array_equal(vectors(first).vectors, vectors(again).vectors)


def test_formats_and_lengths(
    client: Client, sample: bytes, by_hand: dict[EmbeddingLevel, np.ndarray]
) -> None:
    for level, wanted in by_hand.items():
        options = Options(embeddings=level, embedding_dtype="float16", normalise_embeddings=True)
        found = vectors(client.classify(sample, options)).vectors
        assert found.dtype == np.float16
        unit_vectors = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        np.testing.assert_allclose(found.astype(np.float32), unit_vectors, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "units_s", "windows_s"),
    [
        (
            Options(ranges_ns=ranges_of_seconds((2, 4), (9, 12))),
            [2, 2.5, 3, 3.5, 9, 9.5, 10, 10.5, 11, 11.5],
            [2, 9, 10],
        ),
        (Options(windowing=WholeVideo()), np.arange(16), [0, 4, 8, 12]),
        (Options(windowing=Sliding.of_seconds(4, 1)), np.arange(16), np.arange(13)),
        (Options(windowing=Sliding.of_seconds(2, 2), fast=True), np.arange(32) / 2, np.arange(0, 16, 2)),
    ],
    ids=["ranges", "whole video", "overlapping windows", "fast"],
)
def test_each_unit_and_window_comes_once_in_the_order_of_time(
    client: Client, sample: bytes, options: Options, units_s: np.ndarray, windows_s: np.ndarray
) -> None:
    for level, wanted_s in ((UNIT, units_s), (WINDOW, windows_s)):
        found = vectors(client.classify(sample, replace(options, embeddings=level)))
        np.testing.assert_array_equal(found.start_s, wanted_s)
        assert len(np.unique(found.vectors.round(4), axis=0)) == len(found)


def test_the_last_window_of_an_odd_length_brings_the_last_units(client: Client) -> None:
    """The last window of 4.7 s starts less than a stride after the one before it."""
    found = vectors(client.classify(panning_clip(4.7), Options(embeddings=UNIT)))
    np.testing.assert_array_equal(found.start_s, np.arange(9) / 2)


def test_views_are_numbered(client: Client, sample: bytes) -> None:
    views = Views(clips=2, crops=3)
    found = vectors(client.classify(sample, Options(windowing=views, embeddings=WINDOW)))
    assert found.view.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.start_s.tolist() == [0, 0, 0, 14, 14, 14]
    units = vectors(client.classify(sample, Options(windowing=views, embeddings=UNIT)))
    assert len(units) == 24
    for view in range(6):
        start_s = units.start_s[units.view == view]
        np.testing.assert_array_equal(start_s, (0 if view < 3 else 14) + np.arange(4) / 2)
    mean = vectors(client.classify(sample, Options(windowing=views, embeddings=VIDEO)))
    np.testing.assert_allclose(mean.vectors[0], found.vectors.mean(0), atol=2e-4)


def test_a_stream_brings_them_in_parts(
    client: Client, sample: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings_module, "_PART_BYTES", 5 * 160 * 4)
    options = Options(embeddings=UNIT)
    *events, answer = client.stream(sample, options)
    parts = [event for event in events if isinstance(event, Embeddings)]
    assert len(parts) > 6
    assert max(len(part) for part in parts) <= 5
    assert isinstance(answer, Classification)
    assert answer.embeddings is None
    joined, whole = join(parts), vectors(client.classify(sample, options))
    assert joined is not None
    np.testing.assert_array_equal(joined.vectors, whole.vectors)
    np.testing.assert_array_equal(joined.start_ns, whole.start_ns)


async def test_asyncio_client_and_single_messages_give_the_same(
    served: Served, client: Client, stub: VideoClassifierStub, sample: bytes
) -> None:
    wanted = vectors(client.classify(sample, Options(embeddings=WINDOW)))
    async with AsyncClient(served.target) as other:
        found = vectors(await other.classify(sample, Options(embeddings=WINDOW)))
    np.testing.assert_array_equal(found.vectors, wanted.vectors)
    single = stub.Classify(_messages(sample, classification_pb2.EMBEDDING_LEVEL_WINDOW)).classification
    np.testing.assert_array_equal(vectors(classification_from_proto(single)).vectors, wanted.vectors)


def test_a_single_message_has_a_limit_that_its_error_names(
    stub: VideoClassifierStub, client: Client, sample: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unary_module, "_MAX_BYTES", 20 * 160 * 4)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(_messages(sample, classification_pb2.EMBEDDING_LEVEL_UNIT))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "the limit of Classify" in str(caught.value.details())
    assert "ClassifyStreaming" in str(caught.value.details())
    assert len(vectors(client.classify(sample, Options(embeddings=UNIT)))) == 32


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (classification_pb2.ClassifyOptions(only_embeddings=True), "only_embeddings leaves nothing"),
        (classification_pb2.ClassifyOptions(embeddings=9), "embeddings 9 is not one of UNIT, WINDOW, VIDEO"),  # pyright: ignore[reportArgumentType]
        (
            classification_pb2.ClassifyOptions(embeddings=1, embedding_dtype=7),  # pyright: ignore[reportArgumentType]
            "embedding_dtype 7 is not one of FLOAT32, FLOAT16",
        ),
    ],
)
def test_options_that_make_no_sense_are_named(
    stub: VideoClassifierStub, sample: bytes, message: classification_pb2.ClassifyOptions, says: str
) -> None:
    requests = [pb.ClassifyRequest(options=message), pb.ClassifyRequest(chunk=sample)]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(iter(requests))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in str(caught.value.details())


def test_a_failed_video_fails_as_without_embeddings(client: Client) -> None:
    with pytest.raises(ServerError, match="NOT_A_VIDEO"):
        client.classify(b"no video at all" * 100, Options(embeddings=UNIT))


def _messages(video: bytes, level: "classification_pb2.EmbeddingLevel") -> Iterator[pb.ClassifyRequest]:
    yield pb.ClassifyRequest(options=classification_pb2.ClassifyOptions(embeddings=level))
    yield pb.ClassifyRequest(chunk=video)
