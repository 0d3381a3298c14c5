"""End to end over a real channel: malformed messages and unexpected errors."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest

from tests.support.running_server import OPTIONS, Served, wait_until
from tests.support.sample_clip import panning_clip
from tubelet.service.log.lines import JsonLines
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.wire.status import ServerError, from_rpc_error
from tubelet.v1 import classification_pb2
from tubelet.v1 import video_classifier_pb2 as pb

NO_MESSAGE = b"\xff\xff\xff"
EMPTY_RANGE = b"\x3a\x00"
EMPTY_RANGES = classification_pb2.ClassifyOptions.FromString(EMPTY_RANGE * 131_072)

Call = Callable[[str, Sequence[bytes]], ServerError]


@pytest.fixture
def refused(served: Served) -> Iterator[Call]:
    """Calls a method with raw messages, and returns its error."""
    with grpc.insecure_channel(served.target) as channel:

        def call(method: str, messages: Sequence[bytes]) -> ServerError:
            path = f"/tubelet.v1.VideoClassifier/{method}"
            try:
                match method:
                    case "Classify":
                        channel.stream_unary(path)(iter(messages), timeout=60)
                    case "ClassifyStreaming" | "Explain":
                        list(channel.stream_stream(path)(iter(messages), timeout=60))
                    case _:
                        channel.unary_unary(path)(messages[0], timeout=60)
            except grpc.RpcError as error:
                return from_rpc_error(error, served.target)
            raise AssertionError("it was answered")

        yield call


@pytest.mark.parametrize(
    ("method", "messages", "says"),
    [
        ("Classify", [NO_MESSAGE], "a message of 3 bytes is not a tubelet.v1.ClassifyRequest"),
        ("Classify", [OPTIONS.SerializeToString(), NO_MESSAGE], "not a tubelet.v1.ClassifyRequest"),
        ("ClassifyStreaming", [NO_MESSAGE], "not a tubelet.v1.ClassifyStreamingRequest"),
        (
            "ClassifyStreaming",
            [
                OPTIONS.SerializeToString(),
                pb.ClassifyStreamingRequest(chunk=panning_clip(1.0)[:1000]).SerializeToString(),
                NO_MESSAGE,
            ],
            "not a tubelet.v1.ClassifyStreamingRequest",
        ),
        ("Explain", [NO_MESSAGE], "not a tubelet.v1.ExplainRequest"),
        ("ListModels", [NO_MESSAGE], "not a tubelet.v1.ListModelsRequest"),
        ("GetModel", [NO_MESSAGE], "not a tubelet.v1.GetModelRequest"),
        (
            "Classify",
            [pb.ClassifyRequest(options=EMPTY_RANGES).SerializeToString()],
            "has 262148 bytes; the limit is 262144",
        ),
        ("GetModel", [pb.GetModelRequest(name="m" * 262_144).SerializeToString()], "the limit is 262144"),
    ],
)
def test_malformed_messages(
    served: Served, refused: Call, method: str, messages: list[bytes], says: str
) -> None:
    counts = {"method": method, "code": "INVALID_ARGUMENT"}
    before = served.metric("tubelet_requests_total", **counts)
    has_bytes = len(messages) == 3  # then work has begun
    names = ("tubelet_rejected_requests_total", "tubelet_failed_requests_total")
    counted, other = reversed(names) if has_bytes else names
    before_counted, before_other = (
        served.metric(name, reason="MALFORMED_MESSAGE") for name in (counted, other)
    )
    error = refused(method, messages)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
    assert says in error.message
    wait_until(served, "tubelet_requests_total", before + 1, **counts)
    assert served.metric(counted, reason="MALFORMED_MESSAGE") == before_counted + 1
    assert served.metric(other, reason="MALFORMED_MESSAGE") == before_other


@pytest.mark.parametrize("letter", ["a", "%", "é", "\N{FILM FRAMES}"])
@pytest.mark.parametrize("field", ["model", "version"])
def test_long_names_are_cut_in_the_error(refused: Call, field: str, letter: str) -> None:
    options = classification_pb2.ClassifyOptions()
    setattr(options, field, letter * 30_000)
    error = refused("Classify", [pb.ClassifyRequest(options=options).SerializeToString()])
    assert (error.code, error.reason) == ("NOT_FOUND", "UNKNOWN_MODEL")
    assert f"{letter * 100}…'" in error.message
    assert "; loaded " in error.message
    assert error.metadata["value"].startswith(letter)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("Classify", OPTIONS),
        ("ClassifyStreaming", OPTIONS),
        ("ListModels", pb.ListModelsRequest()),
        ("GetModel", pb.GetModelRequest()),
    ],
)
def test_unexpected_errors_are_masked_in_every_method(
    served: Served,
    refused: Call,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
    message: Any,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("something inside")

    for name in ("find", "is_default"):
        monkeypatch.setattr(ModelRegistry, name, fail)
    counts = {"method": method, "code": "INTERNAL"}
    before = served.metric("tubelet_requests_total", **counts)
    with caplog.at_level(logging.ERROR):
        error = refused(method, [message.SerializeToString()])
    assert (error.code, error.reason) == ("INTERNAL", "INTERNAL")
    assert "inside" not in str(error)
    wait_until(served, "tubelet_requests_total", before + 1, **counts)
    assert error.request_id == error.metadata["request_id"]
    assert error.request_id in error.message
    logged = [JsonLines().format(record) for record in caplog.records if record.exc_info]
    assert [json.loads(line)["request_id"] for line in logged] == [error.request_id]
    assert "RuntimeError: something inside" in caplog.text
