"""End to end over a real channel: ``Explain``, its limits, errors, metrics, and what it leaves alone."""

import asyncio
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.model_serving import write
from tests.support.running_server import Served, serving, wait_until
from tubelet.models.repository.repository import ModelStore
from tubelet.service.client import AsyncClient, Client
from tubelet.service.server.app import SAMPLE_CLIP
from tubelet.service.types.embeddings import EmbeddingLevel
from tubelet.service.types.explanation import ExplainedVideo, ExplainOptions
from tubelet.service.types.request import Options, WholeVideo
from tubelet.service.types.video import NS_PER_S
from tubelet.service.wire.explanation import explain_options_to_proto
from tubelet.service.wire.status import ServerError
from tubelet.v1 import explanation_pb2
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

SAMPLE = SAMPLE_CLIP.read_bytes()
FIRST = Options(ranges_ns=((0, 3 * NS_PER_S),))
LABELS = ExplainOptions(labels=("static", "zoom_in"))


class Held(BytesIO):
    """A video whose first byte comes when ``rest`` is set."""

    def __init__(self, rest: threading.Event) -> None:
        super().__init__(SAMPLE)
        self._rest = rest

    def read(self, size: int | None = -1) -> bytes:
        self._rest.wait()
        return super().read(size)


@pytest.fixture(scope="module")
def small() -> Iterator[Served]:
    """A server that explains one video at a time."""
    with serving(server={"max_videos_explained": 1, "retry_after_s": 0.2}) as served:
        yield served


def reason(client: Client, asked: ExplainOptions, options: Options = FIRST, **call: Any) -> str:
    """Return the reason for which ``asked`` is refused."""
    with pytest.raises(ServerError) as caught:
        client.explain(SAMPLE, asked, options, **call)
    return caught.value.reason or caught.value.code


def test_maps_come_with_their_segments(served: Served, client: Client) -> None:
    found = client.explain(SAMPLE, LABELS, FIRST)
    plain = client.classify(SAMPLE, FIRST)
    ranges = [(segment.start_ns, segment.end_ns) for segment in plain.segments]
    assert [(each.start_ns, each.end_ns) for each in found.classification.segments] == ranges
    assert [(each.segment, each.question.label) for each in found.maps] == [
        (segment, label) for segment in found.classification.segments for label in LABELS.labels
    ]
    for each in found.maps:
        assert each.map.sum() + each.on_no_patch == pytest.approx(1, abs=1e-5)
        assert (each.question.method, each.question.layer) == ("relevance", None)
        assert (each.rectangle.top, each.rectangle.bottom) == (0, 1)
    assert found.classification.request_id
    assert found.classification.stage_seconds["explain"] > 0


async def test_all_clients_get_the_same(served: Served, client: Client) -> None:
    asked = ExplainOptions("attention", layer=0, head=1)
    one = client.explain(SAMPLE, asked, FIRST)
    async with AsyncClient(served.target) as other:
        two = await other.explain(SAMPLE, asked, FIRST)
    assert [each.question for each in one.maps] == [each.question for each in two.maps]
    assert one.maps[0].question.layer == 0
    for first, second in zip(one.maps, two.maps, strict=True):
        np.testing.assert_array_equal(first.map, second.map)
        np.testing.assert_array_equal(first.start_ns, second.start_ns)


def test_events_come_in_their_order(served: Served) -> None:
    with grpc.insecure_channel(served.target) as channel:
        head = pb.ExplainRequest(options=explain_options_to_proto(ExplainOptions("rollout"), FIRST))
        messages = iter([head, pb.ExplainRequest(chunk=SAMPLE)])
        kinds = [event.WhichOneof("event") for event in VideoClassifierStub(channel).Explain(messages)]
    assert [kind for kind in kinds if kind != "progress"] == ["video", "map", "map", "map", "classification"]


def test_a_message_of_no_options_is_relevance_of_the_best_label(served: Served) -> None:
    with grpc.insecure_channel(served.target) as channel:
        head = pb.ExplainRequest(options=explanation_pb2.ExplainOptions())
        messages = iter([head, pb.ExplainRequest(chunk=SAMPLE)])
        events = [*VideoClassifierStub(channel).Explain(messages)]
    maps = [event.map for event in events if event.WhichOneof("event") == "map"]
    assert len(maps) == 16
    assert all(each.label == each.segment.labels[0].name for each in maps)
    assert {each.method for each in maps} == {explanation_pb2.EXPLAIN_METHOD_RELEVANCE}


@pytest.mark.parametrize(
    ("asked", "options", "expected"),
    [
        (ExplainOptions(labels=("flying",)), FIRST, "UNKNOWN_LABEL"),
        (ExplainOptions(against="static"), FIRST, "LABEL_MISSING"),
        (ExplainOptions(labels=("static",), against="static"), FIRST, "SAME_LABEL"),
        (ExplainOptions("attention", layer=-1), FIRST, "LAYER_OUT_OF_RANGE"),
        (ExplainOptions("attention", head=64), FIRST, "HEAD_OUT_OF_RANGE"),
        (ExplainOptions("rollout", head=0), FIRST, "NOT_FOR_METHOD"),
        (ExplainOptions(), Options(embeddings=EmbeddingLevel.UNIT), "MALFORMED_OPTION"),
        (ExplainOptions(), Options(score_threshold=1.0), "NO_SEGMENT"),
        (ExplainOptions(), Options(model="nobody"), "UNKNOWN_MODEL"),
    ],
)
def test_questions_get_their_reasons(
    served: Served, client: Client, asked: ExplainOptions, options: Options, expected: str
) -> None:
    before = served.metric("tubelet_uploaded_bytes_total")
    assert reason(client, asked, options) == expected
    if expected != "NO_SEGMENT":
        assert served.metric("tubelet_rejected_requests_total", reason=expected) >= 1
        assert served.metric("tubelet_uploaded_bytes_total") == before


def test_an_unknown_method_is_refused(served: Served) -> None:
    method: Any = 9
    head = pb.ExplainRequest(options=explanation_pb2.ExplainOptions(method=method))
    with grpc.insecure_channel(served.target) as channel, pytest.raises(grpc.RpcError, match="method 9"):
        list(VideoClassifierStub(channel).Explain(iter([head])))
    with pytest.raises(ValueError, match="'magic'"):
        explain_options_to_proto(ExplainOptions("magic"), Options())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("field", ["layer", "head", "best"])
def test_a_number_that_no_message_holds_is_named(client: Client, field: str) -> None:
    huge: dict[str, Any] = {field: 2**40}
    with pytest.raises(ValueError, match=rf"^{field} is 1099511627776; it must be "):
        client.explain(SAMPLE, ExplainOptions("attention", **huge), FIRST)


def test_metrics_and_the_log_say_what_happened(
    served: Served, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "tubelet.call"):
        found = client.explain(SAMPLE, ExplainOptions("rollout"), FIRST)
    windows = served.metric("tubelet_stage_seconds_count", stage="explain", model="camera-motion")
    assert windows >= 2  # two of the first three seconds
    assert served.metric("tubelet_requests_total", method="Explain", code="OK") >= 1
    model = ModelStore().find("camera-motion").load()
    weights = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    assert served.metric("tubelet_explain_model_bytes", model="camera-motion") == weights
    lines = [record.__dict__["fields"] for record in caplog.records]
    (line,) = [line for line in lines if line["request_id"] == found.classification.request_id]
    assert (line["rpc"], line["code"], line["windows"]) == ("Explain", "OK", 2)
    assert line["explain_s"] > 0


async def test_more_than_the_limit_are_refused_and_classified_still(small: Served) -> None:
    rest = threading.Event()
    async with AsyncClient(small.target, retries=False) as other:
        first = asyncio.create_task(other.explain(Held(rest), LABELS, FIRST))
        await asyncio.to_thread(wait_until, small, "tubelet_videos_in_flight", 1)
        try:
            with Client(small.target, retries=False) as client:
                error = await asyncio.to_thread(_until_refused, client)
                assert (error.reason, error.metadata["limit"]) == ("OVERLOADED", "1")
                assert error.retry_after_s == 0.2
                assert (await asyncio.to_thread(client.classify, SAMPLE, FIRST)).labels
        finally:
            rest.set()
        assert (await first).maps
    with Client(small.target) as client:
        assert client.explain(SAMPLE, LABELS, FIRST).maps


def _until_refused(client: Client) -> ServerError:
    """Explain until the other call, whose options are on their way, is the one allowed; return the error."""
    while True:
        try:
            client.explain(SAMPLE, ExplainOptions("rollout"), FIRST)
        except ServerError as error:
            return error


def test_a_deadline_and_a_client_that_leaves_end_the_work(served: Served, client: Client) -> None:
    slow = ExplainOptions("occlusion", best=5)
    assert reason(client, slow, Options(), timeout_s=1.0) == "DEADLINE_EXCEEDED"
    head = pb.ExplainRequest(options=explain_options_to_proto(slow, Options()))
    with grpc.insecure_channel(served.target) as channel:
        call = VideoClassifierStub(channel).Explain(iter([head, pb.ExplainRequest(chunk=SAMPLE)]))
        assert any(event.WhichOneof("event") == "map" for event in call)
        call.cancel()
    wait_until(served, "tubelet_videos_in_flight", 0)
    wait_until(served, "tubelet_queued_explanations", 0)
    assert served.metric("tubelet_requests_total", method="Explain", code="CANCELLED") >= 1
    assert client.explain(SAMPLE, ExplainOptions("rollout"), FIRST).maps


async def test_neither_explaining_nor_classifying_changes_the_other(served: Served, client: Client) -> None:
    def seen(found: ExplainedVideo) -> np.ndarray:
        return np.concatenate([each.map for each in found.maps])

    alone, plain = client.explain(SAMPLE, LABELS, FIRST), client.classify(SAMPLE)
    async with AsyncClient(served.target) as other:
        classifying = [asyncio.create_task(other.classify(SAMPLE)) for _ in range(6)]
        explained = await other.explain(SAMPLE, LABELS, FIRST)
        classified = await asyncio.gather(*classifying)
    np.testing.assert_allclose(seen(explained), seen(alone), atol=1e-6)
    for answer in classified:
        scores = [label.score for label in answer.labels]
        np.testing.assert_allclose(scores, [label.score for label in plain.labels], atol=1e-3)


def test_a_model_that_cannot_be_loaded_a_second_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "1")
    with (
        serving(models={"store": str(tmp_path), "default": "tiny"}) as served,
        Client(served.target, retries=False) as client,
    ):
        (tmp_path / "tiny" / "1" / "weights.safetensors").unlink()
        with pytest.raises(ServerError, match="cannot load model tiny 1 a second time") as caught:
            client.explain(SAMPLE, options=FIRST)
        assert client.classify(SAMPLE, FIRST).segments
    assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "BROKEN_MODEL")
    assert str(tmp_path) not in caught.value.message
    assert "weights.safetensors" in caplog.text


def test_long_maps_are_one_message(client: Client) -> None:
    (found,) = client.explain(SAMPLE, ExplainOptions("rollout"), Options(windowing=WholeVideo())).maps
    assert found.map.shape == (16, 6, 6)
