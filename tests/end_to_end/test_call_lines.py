"""The line of each call in the log, and the request id that the client gets."""

import json
import logging
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

import grpc
import pytest
from blake3 import blake3

from tests.support.http_server import by_ranges, site
from tests.support.running_server import OPTIONS, Served, Upload, serving, wait_until
from tests.support.sample_clip import panning_clip
from tubelet.service.client import AsyncClient, Client, Options, ServerError
from tubelet.service.log.lines import JsonLines, TextLines
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

Line = dict[str, Any]
Next = Callable[[], tuple[Line, str]]

NOT_A_VIDEO = b"Dear server,\nthis is a letter.\n" * 50
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Next]:
    """Returns the next line of a call as a JSON object and as text; waits for it."""
    read = 0

    def next_line() -> tuple[Line, str]:
        nonlocal read
        end_s = monotonic() + 60
        while len(records := [each for each in caplog.records if each.name == "tubelet.call"]) <= read:
            assert monotonic() < end_s, "no line"
            sleep(0.01)
        read += 1
        return json.loads(JsonLines().format(records[read - 1])), TextLines().format(records[read - 1])

    with caplog.at_level(logging.INFO, "tubelet.call"):
        yield next_line


def test_a_success_has_the_video_its_answer_and_its_stages(client: Client, lines: Next) -> None:
    clip = panning_clip(2.0)
    answer = client.classify(clip)
    line, text = lines()
    best, metadata = answer.labels[0], answer.metadata
    expected = {
        "level": "INFO",
        "message": "call",
        "rpc": "Classify",
        "code": "OK",
        "model": answer.model,
        "version": answer.version,
        "container": metadata.container,
        "codec": metadata.codec,
        "width": metadata.width,
        "height": metadata.height,
        "video_s": round(metadata.duration_s, 4),
        "bytes": len(clip),
        "digest": f"blake3:{blake3(clip).hexdigest()}",
        "windows": 1,
        "label": best.name,
        "score": pytest.approx(best.score, abs=1e-4),
    }
    assert {key: line.get(key) for key in expected} == expected
    assert line["request_id"] == answer.request_id
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    for stage, seconds in answer.stage_seconds.items():
        assert line[f"{stage}_s"] == pytest.approx(seconds, abs=1e-4)
    assert line["seconds"] >= line["total_s"]
    assert not {"reason", "etag", "identity"} & line.keys()
    assert f" rpc=Classify code=OK seconds={line['seconds']} request_id={line['request_id']} peer=" in text


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ((("x-request-id", "abc-1"),), "abc-1"),
        ((("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),), TRACE),
        ((("x-request-id", 'a" code=OK b'),), 'a"%20code=OK%20b'),
        ((("x-request-id", "x" * 4000),), "x" * 128),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_the_id_of_the_client_is_logged_and_sent_back(
    stub: VideoClassifierStub, lines: Next, metadata: Any, expected: str, fails: bool
) -> None:
    request = pb.GetModelRequest(name="nobody" if fails else "camera-motion")
    call = stub.GetModel.future(request, metadata=metadata)
    assert (call.code() is grpc.StatusCode.NOT_FOUND) == fails
    assert dict(call.trailing_metadata())["x-request-id"] == expected
    line, text = lines()
    assert line["request_id"] == expected
    assert line["code"] == ("NOT_FOUND" if fails else "OK")
    assert text.count(" code=") == 1 + expected.count(" code=")


def test_an_id_of_a_megabyte_never_reaches_the_log(stub: VideoClassifierStub) -> None:
    """GRPC itself refuses metadata of more than 16 KiB."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListModels(pb.ListModelsRequest(), metadata=(("x-request-id", "x" * (1 << 20)),))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # pyright: ignore[reportAttributeAccessIssue]


async def test_errors_of_both_clients_have_the_id_of_the_line(
    served: Served, client: Client, lines: Next
) -> None:
    async with AsyncClient(served.target) as other:
        with pytest.raises(ServerError) as first:
            client.classify(NOT_A_VIDEO)
        with pytest.raises(ServerError) as second:
            await other.classify(NOT_A_VIDEO)
        with pytest.raises(ServerError) as third:
            _ = [event async for event in other.stream(b"", Options(model="nobody"))]
    for error, rpc, reason in (
        (first.value, "Classify", "NOT_A_VIDEO"),
        (second.value, "Classify", "NOT_A_VIDEO"),
        (third.value, "ClassifyStreaming", "UNKNOWN_MODEL"),
    ):
        line, _ = lines()
        assert (line["level"], line["rpc"], line["code"], line["reason"]) == (
            "WARNING",
            rpc,
            error.code,
            reason,
        )
        assert line["request_id"] == error.request_id
        assert error.request_id not in str(error)


def test_a_cancelled_call_has_what_arrived(served: Served, stub: VideoClassifierStub, lines: Next) -> None:
    upload = Upload(stub)
    upload.send(panning_clip(2.0)[:1000])
    wait_until(served, "tubelet_videos_in_flight", 1.0)
    upload.call.cancel()
    upload.send(None)
    line, _ = lines()
    assert (line["level"], line["code"]) == ("WARNING", "CANCELLED")
    assert line["bytes"] in (0, 1000)
    assert line["model"] == "camera-motion"


def test_no_server_has_no_request_id() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(ServerError, match="SERVER_UNREACHABLE") as caught:
        client.models()
    assert caught.value.request_id == ""


def test_only_the_sample_of_successes_is_logged_but_every_failure(lines: Next) -> None:
    with serving(log={"sample": 0.0}) as served, grpc.insecure_channel(served.target) as channel:
        stub = VideoClassifierStub(channel)
        for _ in range(3):
            stub.ListModels(pb.ListModelsRequest())
            with pytest.raises(grpc.RpcError):
                stub.Classify(iter([OPTIONS]))
        assert [lines()[0]["rpc"] for _ in range(3)] == ["Classify"] * 3


def test_level_error_leaves_out_failures_that_are_not_the_servers(caplog: pytest.LogCaptureFixture) -> None:
    for level, number in ((logging.ERROR, 0), (logging.WARNING, 1)):
        with caplog.at_level(level, "tubelet.call"), serving() as served, Client(served.target) as client:
            with pytest.raises(ServerError):
                client.classify(NOT_A_VIDEO)
            assert client.models()
        assert len([each for each in caplog.records if each.name == "tubelet.call"]) == number


def test_a_video_at_a_uri_has_its_etag(lines: Next) -> None:
    clip = panning_clip(1.0)
    with (
        site() as web,
        serving(fetch={"allow": [web.url], "allowed_private_networks": ["127.0.0.1/32"]}) as served,
        Client(served.target) as client,
    ):
        web.answers["/ranges"] = by_ranges(clip, '"v1"')
        web.answers["/whole"] = lambda request: request.reply(200, clip, ETag='W/"v2"')
        for path, etag in (("ranges", '"v1"'), ("whole", 'W/"v2"')):
            client.classify(f"{web.url}/{path}")
            line, text = lines()
            assert (line["etag"], line["bytes"]) == (etag, len(clip))
            assert f" etag={json.dumps(etag)} " in text
            assert "digest" not in line
            assert web.url not in text
