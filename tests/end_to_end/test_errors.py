"""End to end over a real channel: invalid input and crashes."""

import os
import random
import signal
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status

from tests.support.running_server import OPTIONS, Served, serving
from tests.support.sample_clip import panning_clip
from tests.support.videos import worker_pids
from tubelet.service.client import Client
from tubelet.service.server.app import SAMPLE_CLIP
from tubelet.service.types.request import Options, Sliding
from tubelet.service.types.result import Classification
from tubelet.service.types.video import NS_PER_S
from tubelet.service.wire.status import ServerError
from tubelet.v1 import classification_pb2
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub


def asking(**options: Any) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(options=classification_pb2.ClassifyOptions(**options))


def refused(client: Client, video: bytes, options: Options | None = None) -> ServerError:
    with pytest.raises(ServerError) as caught:
        client.classify(video, options or Options(), timeout_s=60)
    return caught.value


def outcome(client: Client, video: bytes) -> str:
    """Return the reason of the error, or an empty string."""
    try:
        client.classify(video, timeout_s=60)
    except ServerError as error:
        return error.reason
    return ""


def sound() -> bytes:
    """Return an mp4 with a second of sound and no picture."""
    out = BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


@pytest.mark.parametrize(
    ("video", "code", "reason", "says"),
    [
        (b"", "INVALID_ARGUMENT", "EMPTY_UPLOAD", "empty"),
        (b"Dear server,\nthis is a letter.\n" * 50, "INVALID_ARGUMENT", "NOT_A_VIDEO", ""),
        (random.Random(0).randbytes(5000), "INVALID_ARGUMENT", "NOT_A_VIDEO", ""),
        (sound(), "INVALID_ARGUMENT", "NO_VIDEO_STREAM", "1 stream, none of video"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
            "INVALID_ARGUMENT",
            "NOT_A_VIDEO",
            "not a video",
        ),
        # The index of an mp4 stands at its end: without it nothing is known of the rest.
        (panning_clip(1.0)[:20_000], "INVALID_ARGUMENT", "NOT_A_VIDEO", ""),
        (bytes(40_000_001), "RESOURCE_EXHAUSTED", "UPLOAD_TOO_LARGE", "limit of 40000000 bytes"),
    ],
    ids=["empty", "text", "noise", "sound only", "playlist", "truncated", "too large"],
)
def test_invalid_uploads_get_their_reasons(
    client: Client, video: bytes, code: str, reason: str, says: str
) -> None:
    error = refused(client, video)
    assert (error.code, error.reason) == (code, reason)
    assert says in error.message


@pytest.mark.parametrize(
    "limit",
    [{"decode": {"max_duration_s": 2}}, {"decode": {"max_windows": 3}}, {"upload": {"max_bytes": 60_000}}],
    ids=str,
)
def test_server_starts_with_limits_below_the_warm_up_clip(limit: dict[str, Any]) -> None:
    with serving(**limit) as served, Client(served.target) as client:
        assert outcome(client, panning_clip(1.0)) == ""
        assert outcome(client, SAMPLE_CLIP.read_bytes()).endswith("TOO_LARGE")


def test_video_longer_than_the_limit_is_refused() -> None:
    """Whatever the container's header says; a video of exactly the limit is answered."""
    containers = {"mp4": "libx264", "matroska": "libx264", "mpegts": "libx264", "avi": "mpeg4"}
    with serving(decode={"max_duration_s": 2}) as served, Client(served.target) as client:
        for container, codec in containers.items():
            error = refused(client, panning_clip(4.0, container=container, codec=codec))
            assert error.reason == "VIDEO_TOO_LARGE", container
            assert "or more, the limit is 2 s" in error.message
            answer = client.classify(panning_clip(2.0, container=container, codec=codec))
            assert answer.metadata.duration_ns == pytest.approx(2 * NS_PER_S, rel=0.01)


@pytest.mark.parametrize("ranges_ns", [(), ((0, 9 * NS_PER_S),)], ids=["open", "known"])
def test_more_windows_than_the_limit_are_refused(ranges_ns: tuple[tuple[int, int], ...]) -> None:
    """Windows of 1 s every 0.5 s: eight seconds have fifteen, and so has the warm-up clip."""
    with serving(decode={"max_windows": 15}) as served, Client(served.target) as client:
        every = Options(windowing=Sliding(NS_PER_S, NS_PER_S // 2), ranges_ns=ranges_ns)
        error = refused(client, panning_clip(8.5), every)
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "VIDEO_TOO_LARGE")
        assert "more windows than the limit of 15" in error.message
        assert len(client.classify(panning_clip(8.0), every).segments) == 16


@pytest.mark.parametrize(
    ("options", "code", "reason", "says"),
    [
        (Options(model="nobody"), "NOT_FOUND", "UNKNOWN_MODEL", "loaded models: camera-motion"),
        (Options(version="99.9"), "NOT_FOUND", "UNKNOWN_MODEL", "has no version '99.9'"),
        (Options(model="camera-motion:99.9"), "NOT_FOUND", "UNKNOWN_MODEL", "has no version '99.9'"),
        (
            Options(model="camera-motion:1", version="2"),
            "INVALID_ARGUMENT",
            "MALFORMED_OPTION",
            "the model is 'camera-motion:1', but the version beside it is '2'",
        ),
        (Options(model="a:b:c"), "INVALID_ARGUMENT", "MALFORMED_OPTION", "is written NAME or NAME:VERSION"),
        (
            Options(top_k=100_000),
            "INVALID_ARGUMENT",
            "MALFORMED_OPTION",
            "top_k is 100000; the limit is 1000",
        ),
        (Options(score_threshold=1.5), "INVALID_ARGUMENT", "MALFORMED_OPTION", "score_threshold is 1.5"),
        (
            Options(windowing=Sliding(NS_PER_S // 10)),
            "INVALID_ARGUMENT",
            "MALFORMED_OPTION",
            "the window is 0.1 s",
        ),
        (Options(ranges_ns=((5, 4),)), "INVALID_ARGUMENT", "MALFORMED_OPTION", "empty or negative"),
        (
            Options(ranges_ns=((99 * NS_PER_S, 100 * NS_PER_S),)),
            "INVALID_ARGUMENT",
            "MALFORMED_OPTION",
            "starts after the video's end at 1 s",
        ),
    ],
)
def test_invalid_options_get_their_reasons(
    client: Client, options: Options, code: str, reason: str, says: str
) -> None:
    error = refused(client, panning_clip(1.0), options)
    assert (error.code, error.reason) == (code, reason)
    assert says in error.message


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "found: none"),
        ([pb.ClassifyRequest()], "found: an empty one"),
        ([pb.ClassifyRequest(chunk=b"x"), OPTIONS], "found: chunk"),
        ([OPTIONS, OPTIONS], "options came twice"),
        ([OPTIONS, pb.ClassifyRequest(chunk=b"x"), pb.ClassifyRequest()], "an empty message came"),
    ],
)
def test_messages_out_of_order(
    stub: VideoClassifierStub, messages: list[pb.ClassifyRequest], says: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(iter(messages))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # pyright: ignore[reportAttributeAccessIssue]
    assert says in str(caught.value.details())  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("method", "message", "field"),
    [
        ("Classify", asking(score_threshold=-1), "score_threshold"),
        ("Classify", asking(model="nobody"), "model"),
        ("Classify", asking(ranges=[{"start": {"seconds": 1}}]), "ranges"),
        ("GetModel", pb.GetModelRequest(name="nobody"), "name"),
        ("GetModel", pb.GetModelRequest(version="never"), "version"),
        ("Classify", asking(model="camera-motion:1", version="2"), "model"),
        ("GetModel", pb.GetModelRequest(name="camera-motion:1", version="2"), "name"),
        ("GetModel", pb.GetModelRequest(name="a:b:c"), "name"),
    ],
)
def test_the_field_at_fault_is_named(
    stub: VideoClassifierStub, method: str, message: Any, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(iter([message]) if method == "Classify" else message)
    status = rpc_status.from_call(caught.value)  # pyright: ignore[reportArgumentType]
    bad = BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert bad.field_violations[0].field == field


def test_truncated_video_is_classified_up_to_its_end(client: Client) -> None:
    whole = panning_clip(4.0, container="matroska")
    answer = client.classify(whole[: len(whole) // 2])
    assert 1 < answer.metadata.duration_ns / NS_PER_S < 3
    assert answer.segments
    assert "the header says 4.000 s" in answer.warnings[0]


def test_damage_in_the_middle_gives_a_warning(client: Client) -> None:
    clip = bytearray(panning_clip(4.0, container="mpegts"))
    clip[len(clip) // 2 : len(clip) // 2 + 3000] = random.Random(0).randbytes(3000)
    answer = client.classify(bytes(clip))
    assert answer.warnings
    assert answer.segments[-1].end_ns == answer.metadata.duration_ns


def test_bad_video_does_not_affect_another_one(client: Client, served: Served, sample: bytes) -> None:
    alone = client.classify(sample)
    found: list[Classification] = []
    beside = threading.Thread(target=lambda: found.append(client.classify(sample)))
    beside.start()
    for _ in range(5):
        assert refused(client, b"garbage" * 1000).reason == "NOT_A_VIDEO"
    beside.join()
    assert [[label.name for label in segment.labels] for segment in found[0].segments] == [
        [label.name for label in segment.labels] for segment in alone.segments
    ]
    assert served.metric("tubelet_failed_requests_total", reason="NOT_A_VIDEO") >= 5


def test_crashed_decoder_fails_only_its_own_video(served: Served, client: Client, sample: bytes) -> None:
    deaths = served.metric("tubelet_decoder_failures_total")
    workers = worker_pids()
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    # Whoever gets a worker that is just dying hears of it; then there are new ones.
    found = [outcome(client, sample) for _ in range(len(workers) + 1)]
    assert set(found) <= {"", "DECODER_CRASHED"}
    assert found[-1] == ""
    # One that had been told to end anyway does not count.
    assert deaths < served.metric("tubelet_decoder_failures_total") <= deaths + len(workers)


def test_invalid_real_files_get_their_reasons(client: Client, videos: Path) -> None:
    reasons = {
        "odd/androidx/sample_audio_only.mp4": "NO_VIDEO_STREAM",
        "odd/fate/Owner-iTunes_9.0.3.15.mp4": "NO_VIDEO_STREAM",  # a song with a cover
        "odd/pointers/annex_link.mp4": "NOT_A_VIDEO",
        "odd/moviepy/result.webm": "EMPTY_UPLOAD",
        "odd/mp4ff/init1.cmfv": "CORRUPT_VIDEO",  # no frame in it
    }
    found = {name: refused(client, (videos / name).read_bytes()).reason for name in reasons}
    assert found == reasons
