"""End to end over a real channel: deadlines, cancellation, overload and drain."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from tests.support.raw_http2 import RawHttp2, message
from tests.support.running_server import OPTIONS, Served, Upload, serving, wait_until
from tests.support.sample_clip import panning_clip
from tubelet.service.client import Client
from tubelet.service.wire.status import ServerError, from_rpc_error
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub


def test_a_cancelled_upload_leaves_nothing_behind(
    served: Served, stub: VideoClassifierStub, client: Client
) -> None:
    before = served.metric("tubelet_requests_total", code="CANCELLED")
    upload = Upload(stub)
    upload.send(panning_clip(1.0)[:1000])
    wait_until(served, "tubelet_videos_in_flight", 1)
    upload.call.cancel()
    wait_until(served, "tubelet_videos_in_flight", 0)
    wait_until(served, "tubelet_requests_total", before + 1, code="CANCELLED")
    upload.send(None)
    assert client.classify(panning_clip(1.0)).segments


def test_deadline_stops_the_work(served: Served, stub: VideoClassifierStub, client: Client) -> None:
    before = served.metric("tubelet_requests_total", code="DEADLINE_EXCEEDED")
    upload = Upload(stub, timeout_s=2)  # time enough for the call to arrive
    upload.send(panning_clip(1.0)[:1000])
    with pytest.raises(grpc.RpcError) as caught:
        upload.call.result()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED  # pyright: ignore[reportAttributeAccessIssue]
    wait_until(served, "tubelet_videos_in_flight", 0)
    wait_until(served, "tubelet_requests_total", before + 1, code="DEADLINE_EXCEEDED")
    upload.send(None)
    assert client.classify(panning_clip(1.0)).segments


@pytest.mark.parametrize(
    ("limit", "reason"),
    [("max_videos_in_flight", "OVERLOADED"), ("max_videos_per_client", "CLIENT_OVERLOADED")],
)
def test_videos_above_the_limit_get_a_retry_delay(limit: str, reason: str) -> None:
    with (
        serving(server={limit: 1, "retry_after_s": 2.5}) as served,
        grpc.insecure_channel(served.target) as channel,
    ):
        stub = VideoClassifierStub(channel)
        first = Upload(stub)
        first.send(panning_clip(1.0))
        wait_until(served, "tubelet_videos_in_flight", 1)
        with pytest.raises(grpc.RpcError) as caught:
            Upload(stub).call.result()
        status = rpc_status.from_call(caught.value)  # pyright: ignore[reportArgumentType]
        retry = RetryInfo()
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # pyright: ignore[reportAttributeAccessIssue]
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.ToMilliseconds() == 2500
        assert served.metric("tubelet_rejected_requests_total", reason=reason) == 1
        error = from_rpc_error(caught.value, served.target)
        assert (error.reason, error.retry_after_s) == (reason, 2.5)
        first.send(None)
        assert first.call.result().classification.segments


def test_calls_are_admitted_before_their_messages_are_read() -> None:
    with (
        serving(server={"max_videos_in_flight": 1}) as served,
        Client(served.target, retries=False) as client,
    ):
        silent = threading.Event()

        def nothing() -> Iterator[pb.ClassifyRequest]:
            silent.wait()
            yield from ()

        with grpc.insecure_channel(served.target) as channel:
            call = VideoClassifierStub(channel).Classify.future(nothing())
            wait_until(served, "tubelet_videos_in_flight", 1)
            with pytest.raises(ServerError, match="1 videos are in flight, the limit is 1"):
                client.classify(panning_clip(1.0))
            call.cancel()
            silent.set()
        wait_until(served, "tubelet_requests_total", 1, code="CANCELLED")
        assert client.classify(panning_clip(1.0)).segments


@pytest.mark.parametrize(
    "messages",
    [[], [OPTIONS], [OPTIONS, pb.ClassifyRequest(chunk=panning_clip(2.0, container="matroska")[:20_000])]],
    ids=["no options", "options alone", "half a video"],
)
def test_idle_upload_ends_and_frees_its_ticket(messages: list[pb.ClassifyRequest]) -> None:
    limits: dict[str, Any] = {"server": {"max_videos_in_flight": 1}, "upload": {"idle_timeout_s": 0.5}}
    with serving(**limits) as served, grpc.insecure_channel(served.target) as channel:
        is_over = threading.Event()

        def silent() -> Iterator[pb.ClassifyRequest]:
            yield from messages
            is_over.wait()

        with pytest.raises(grpc.RpcError) as caught:
            VideoClassifierStub(channel).Classify(silent(), timeout=60)
        is_over.set()
        error = from_rpc_error(caught.value, served.target)
        assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "UPLOAD_IDLE_TIMEOUT")
        assert error.metadata["limit"] == "0.5"
        wait_until(served, "tubelet_videos_in_flight", 0)
        assert served.metric("tubelet_failed_requests_total", reason="UPLOAD_IDLE_TIMEOUT") == 1


def test_upload_cancelled_before_its_first_byte_is_not_empty(
    served: Served, stub: VideoClassifierStub
) -> None:
    before = served.metric("tubelet_requests_total", code="CANCELLED")
    for number in range(10):
        upload = Upload(stub)
        wait_until(served, "tubelet_videos_in_flight", 1)
        upload.call.cancel()
        upload.send(None)
        wait_until(served, "tubelet_videos_in_flight", 0)
        wait_until(served, "tubelet_requests_total", before + number + 1, code="CANCELLED")


def test_a_client_that_reads_no_answer_frees_its_ticket_and_its_worker() -> None:
    """Its connection stays open, and so does the call: even its status waits to be read."""
    chunk = pb.ClassifyRequest(chunk=panning_clip(1.0))
    body = b"".join(message(each.SerializeToString()) for each in (OPTIONS, chunk))
    with (
        serving(upload={"idle_timeout_s": 0.5}) as served,
        RawHttp2(served.server.port, window_bytes=0) as connection,
    ):
        stream = connection.call(b"/tubelet.v1.VideoClassifier/ClassifyStreaming")
        assert connection.send(stream, body, is_end=True) == len(body)
        wait_until(served, "tubelet_failed_requests_total", 1, reason="ANSWER_IDLE_TIMEOUT")
        wait_until(served, "tubelet_videos_in_flight", 0)
        wait_until(served, "tubelet_decoders_busy", 0)


def test_health_watches_see_a_drain_and_do_not_delay_it() -> None:
    status = health_pb2.HealthCheckResponse
    with serving(server={"drain_s": 60.0}) as served, grpc.insecure_channel(served.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
        gone = stub.Watch(health_pb2.HealthCheckRequest())
        for each in (*watches, gone):
            assert next(each).status == status.SERVING
        gone.cancel()
        served.drain()
        for each in watches:
            assert {found.status for found in each} == {status.NOT_SERVING}
        served.thread.join(timeout=60)
        assert not served.thread.is_alive()


def test_number_of_all_calls_is_limited() -> None:
    limits = {"max_videos_in_flight": 1, "max_other_calls": 1}
    with serving(server=limits) as served, grpc.insecure_channel(served.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        next(watch)
        upload = Upload(VideoClassifierStub(channel))
        wait_until(served, "tubelet_videos_in_flight", 1)
        with Client(served.target, retries=False) as client, pytest.raises(ServerError) as caught:
            client.models()
        assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "")
        upload.send(None)


def test_drain_finishes_calls_in_flight_and_refuses_new_ones() -> None:
    with serving() as served, grpc.insecure_channel(served.target) as channel:
        stub = VideoClassifierStub(channel)
        upload = Upload(stub)
        clip = panning_clip(3.0)
        upload.send(clip[:5000])
        wait_until(served, "tubelet_videos_in_flight", 1)
        served.drain()
        wait_until(served, "tubelet_ready", 0)
        with grpc.insecure_channel(served.target) as second, pytest.raises(grpc.RpcError) as caught:
            VideoClassifierStub(second).ListModels(pb.ListModelsRequest(), timeout=60)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE  # pyright: ignore[reportAttributeAccessIssue]
        upload.send(clip[5000:])
        upload.send(None)
        assert upload.call.result().classification.segments
        served.wait()


def test_calls_in_flight_at_the_end_of_a_drain_get_a_retry_delay() -> None:
    with serving(server={"drain_s": 0.2}) as served, grpc.insecure_channel(served.target) as channel:
        stub = VideoClassifierStub(channel)
        uploads = [Upload(stub) for _ in range(2)]
        for each in uploads:
            each.send(panning_clip(3.0)[:5000])
        wait_until(served, "tubelet_videos_in_flight", 2)
        served.drain()
        for each in uploads:
            with pytest.raises(grpc.RpcError) as caught:
                each.call.result(timeout=60)
            error = from_rpc_error(caught.value, served.target)
            assert (error.code, error.reason) == ("UNAVAILABLE", "SERVER_STOPPED")
            assert error.retry_after_s
        served.wait()
