"""Videos at URIs over a real channel: the same answers as for uploads, from few of the bytes."""

import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.support.cli_process import tubelet
from tests.support.http_server import Request, Site, as_a_whole, by_ranges, redirect, site
from tests.support.remux import assert_same, remuxed
from tests.support.running_server import Served, serving
from tests.support.sample_clip import encode
from tubelet.service.client import Client
from tubelet.service.types.request import Options, Views, WholeVideo
from tubelet.service.types.result import Segment
from tubelet.service.types.video import NS_PER_S
from tubelet.service.wire.status import ServerError
from tubelet.v1 import classification_pb2
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

_SECONDS, _FPS = 60, 10
_PART = Options(ranges_ns=((40 * NS_PER_S, 42 * NS_PER_S),))
_VIEWS = Options(windowing=Views(clips=3))
_CONTAINERS = {
    "index at the end": ("mp4", {}),
    "index at the front": ("mp4", {"movflags": "faststart"}),
    "matroska": ("matroska", {}),
    "webm's kind": ("matroska", {"cues_to_front": "1"}),
    "fragmented": ("mp4", {"movflags": "empty_moov", "frag_duration": "5000000"}),
    "a list of fragments": ("mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof+global_sidx"}),
    "mpegts": ("mpegts", {}),
    "no index": ("matroska", {"live": "1"}),
}


@pytest.fixture(scope="module")
def web() -> Iterator[Site]:
    with site() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def served(web: Site) -> Iterator[Served]:
    fetch = {
        "allow": [web.url],
        "allowed_private_networks": ["127.0.0.1/32"],
        "block_bytes": 16 << 10,
        "attempts": 1,
        "timeout_s": 60,
    }
    with serving(fetch=fetch, upload={"max_bytes": 20_000_000}, engine={"precision": "fp32"}) as server:
        yield server


@pytest.fixture(scope="module")
def clip() -> bytes:
    """Return 600 frames of noise, 6 MB, with a key frame each second."""
    return encode(noise(), fps=_FPS, g=str(_FPS), bf="2", preset="ultrafast")


def noise() -> Iterator[np.ndarray]:
    chance = np.random.default_rng(0)
    return (chance.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(_SECONDS * _FPS))


def cut(clip: bytes, folder: Path) -> bytes:
    """Return the clip from 0.5 s on; an edit list hides the frames before that which decoding needs."""
    (folder / "whole.mp4").write_bytes(clip)
    command = ["ffmpeg", "-v", "error", "-ss", "0.5", "-i", "whole.mp4", "-c", "copy", "cut.mp4"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "cut.mp4").read_bytes()


def refused(client: Client, uri: str, options: Options | None = None) -> ServerError:
    with pytest.raises(ServerError) as caught:
        client.classify(uri, options or Options(), timeout_s=60)
    return caught.value


@pytest.mark.parametrize(
    ("name", "options", "at_most"),
    [
        ("index at the end", _PART, 0.1),
        ("index at the front", _PART, 0.1),
        ("matroska", _PART, 0.1),
        ("webm's kind", _PART, 0.1),
        ("avi", _PART, 0.1),
        ("index at the end", _VIEWS, 0.25),
        ("index at the front", _VIEWS, 0.25),
        ("matroska", _VIEWS, 0.25),
        ("index at the end", replace(_VIEWS, ranges_ns=_PART.ranges_ns), 0.1),
        ("cut without decoding", _PART, 0.2),
        # Its index is in the heads of its fragments, 440 kB each.
        ("fragmented", _PART, 0.3),
        ("a list of fragments", _PART, 0.1),
        ("a list of fragments", _VIEWS, 0.3),
        # Its clock is read at many places, and what is wanted is found by trying.
        ("mpegts", _PART, 0.4),
        # What has to be seen as a whole, and what cannot be found, costs all of it.
        ("index at the end", Options(windowing=WholeVideo()), 1),
        ("matroska", Options(), 1),
        ("no index", _PART, 1),
        ("no index", _VIEWS, 1),
        ("two recordings", _PART, 1),
    ],
)
def test_answers_equal_those_of_the_upload(
    served: Served,
    client: Client,
    web: Site,
    clip: bytes,
    tmp_path: Path,
    name: str,
    options: Options,
    at_most: float,
) -> None:
    if name == "avi":  # it has no place for the stamps of B-frames
        video = encode(noise(), fps=_FPS, container="avi", codec="mpeg4", g=str(_FPS))
    elif name == "two recordings":  # their clocks begin anew
        video = 2 * remuxed(clip, *_CONTAINERS["mpegts"])
    elif name == "cut without decoding":
        video = cut(clip, tmp_path)
    else:
        video = remuxed(clip, *_CONTAINERS[name])
    web.answers["/clip"] = by_ranges(video)
    web.sent_bytes, before = 0, served.metric("tubelet_fetched_bytes_total")
    answer = client.classify(f"{web.url}/clip", options)
    uploaded = client.classify(video, options)
    assert_same(answer, replace(uploaded, metadata=answer.metadata))
    assert answer.metadata == replace(uploaded.metadata, size_bytes=len(video))
    assert set(answer.warnings) - set(uploaded.warnings) <= {
        "the number of frames is estimated from the frame rate: not all packets were read"
    }
    assert 0 < answer.fetched_bytes <= at_most * len(video)
    assert answer.fetched_bytes <= web.sent_bytes  # what was sent may not have come before it was over
    assert served.metric("tubelet_fetched_bytes_total") == before + answer.fetched_bytes
    assert uploaded.fetched_bytes == 0
    assert "upload" not in answer.stage_seconds
    assert answer.stage_seconds["fetch"] > 0


def test_estimated_frame_count_gives_a_warning(client: Client, web: Site, clip: bytes) -> None:
    def warnings(name: str) -> tuple[str, ...]:
        web.answers["/clip"] = by_ranges(remuxed(clip, *_CONTAINERS[name]))
        return client.classify(f"{web.url}/clip", _PART).warnings

    for name in ("matroska", "mpegts", "a list of fragments"):
        assert any("is estimated" in warning for warning in warnings(name))
    assert warnings("index at the end") == warnings("fragmented") == ()


def test_segments_arrive_while_the_rest_is_fetched(client: Client, web: Site, clip: bytes) -> None:
    video = remuxed(clip, *_CONTAINERS["matroska"])
    whole = by_ranges(video)
    seen = threading.Event()

    def hold_the_end_back(request: Request) -> None:
        wanted = request.range(len(video))
        if wanted is not None and wanted[0] > len(video) // 2:
            seen.wait(60)
        whole(request)

    web.answers["/clip"] = hold_the_end_back
    events = client.stream(f"{web.url}/clip")
    early = [next(events) for _ in range(3)]
    assert any(isinstance(event, Segment) for event in early)
    seen.set()
    *_, answer = events
    assert_same(answer, client.classify(video))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("options", [Options(), _PART], ids=["sliding", "range"])
def test_server_without_ranges_is_read_from_the_start(
    client: Client, web: Site, clip: bytes, options: Options
) -> None:
    web.answers["/clip"] = as_a_whole(clip)
    answer = client.classify(f"{web.url}/clip", options)
    assert_same(answer, client.classify(clip, options))
    assert answer.fetched_bytes == len(clip)


def test_file_may_be_larger_than_the_limit_on_fetched_bytes(client: Client, web: Site, clip: bytes) -> None:
    padded = clip + (25_000_000).to_bytes(4, "big") + b"free" + bytes(25_000_000 - 8)
    web.answers["/clip"] = by_ranges(padded)
    assert client.classify(f"{web.url}/clip", _PART).metadata.size_bytes > 20_000_000
    web.answers["/clip"] = as_a_whole(padded)
    error = refused(client, f"{web.url}/clip", _PART)
    assert (error.reason, error.metadata["limit"]) == ("UPLOAD_TOO_LARGE", "20000000")


def test_changed_file_is_not_mixed_with_its_old_version(client: Client, web: Site, clip: bytes) -> None:
    versions = iter(range(2, 100))
    first = by_ranges(clip, '"1"')

    def changing(request: Request) -> None:
        (first if len(web.asked) < 4 else by_ranges(clip, f'"{next(versions)}"'))(request)

    web.answers["/clip"] = changing
    web.asked.clear()
    error = refused(client, f"{web.url}/clip")
    assert (error.code, error.reason) == ("ABORTED", "URI_CHANGED")


def test_a_redirect_to_a_private_address_is_refused(client: Client, web: Site, clip: bytes) -> None:
    web.answers["/clip"] = redirect("http://169.254.169.254/latest/meta-data")
    error = refused(client, f"{web.url}/clip")
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "URI_NOT_ALLOWED")
    assert "169" not in error.message


@pytest.mark.parametrize(
    ("uri", "code", "reason"),
    [
        ("https://elsewhere.example/a.mp4", "PERMISSION_DENIED", "URI_NOT_ALLOWED"),
        ("s3://bucket/a.mp4", "PERMISSION_DENIED", "URI_NOT_ALLOWED"),
        ("file:///etc/passwd", "PERMISSION_DENIED", "URI_NOT_ALLOWED"),
        ("https://user:secret@elsewhere.example/a.mp4", "INVALID_ARGUMENT", "MALFORMED_OPTION"),
        ("{web}/absent.mp4", "NOT_FOUND", "URI_NOT_FOUND"),
        ("{web}/text", "INVALID_ARGUMENT", "NOT_A_VIDEO"),
    ],
)
def test_invalid_uris_get_their_reasons(client: Client, web: Site, uri: str, code: str, reason: str) -> None:
    web.answers["/text"] = by_ranges(b"Dear server,\nthis is a letter.\n" * 5000)
    error = refused(client, uri.format(web=web.url))
    assert (error.code, error.reason) == (code, reason)
    assert "secret" not in error.message


def test_uris_are_refused_by_default(web: Site) -> None:
    asked = len(web.asked)
    with serving() as plain, Client(plain.target) as client:
        error = refused(client, f"{web.url}/clip")
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "URI_NOT_ALLOWED")
        assert plain.metric("tubelet_rejected_requests_total", reason="URI_NOT_ALLOWED") == 1
    assert len(web.asked) == asked


def test_no_chunk_may_follow_a_uri(served: Served, client: Client, web: Site, clip: bytes) -> None:
    """A client that does not end its stream gets the answer too."""
    held = threading.Event()
    good = by_ranges(clip)

    def hold(request: Request) -> None:
        held.wait(60)
        good(request)

    web.answers["/clip"], web.answers["/held"] = good, hold

    def options(path: str) -> pb.ClassifyRequest:
        return pb.ClassifyRequest(options=classification_pb2.ClassifyOptions(uri=f"{web.url}{path}"))

    with grpc.insecure_channel(served.target) as channel:
        stub = VideoClassifierStub(channel)
        endless: queue.SimpleQueue[pb.ClassifyRequest | None] = queue.SimpleQueue()
        endless.put(options("/clip"))
        assert stub.Classify(iter(endless.get, None), timeout=60).classification.segments
        endless.put(None)
        parts: queue.SimpleQueue[pb.ClassifyRequest | None] = queue.SimpleQueue()
        parts.put(options("/held"))
        call = stub.Classify.future(iter(parts.get, None), timeout=60)
        parts.put(pb.ClassifyRequest(chunk=clip[:1000]))
        with pytest.raises(grpc.RpcError, match="no message may follow"):
            call.result()
        held.set()
        parts.put(None)


@pytest.mark.parametrize("where", ["a server", "this process"])
def test_commands_classify_uris(served: Served, web: Site, clip: bytes, tmp_path: Path, where: str) -> None:
    web.answers["/clip"] = by_ranges(clip)
    uri = f"{web.url}/clip?signature=1"
    config = tmp_path / "tubelet.toml"
    config.write_text(f'[fetch]\nallow = ["{web.url}"]\nallowed_private_networks = ["127.0.0.1/32"]\n')
    answering = ("--server", served.target) if where == "a server" else ("--config", str(config))
    bad = "https://elsewhere.example/clip"
    done = tubelet("classify", uri, bad, "--range", "40-42", "--json", "--in-order", *answering)
    answer, failed = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 1
    assert (answer["video"], answer["duration_s"]) == (uri, _SECONDS)
    assert 0 < answer["fetched_bytes"] < len(clip) / 5
    assert failed["error"]["reason"] == "URI_NOT_ALLOWED"


def test_evaluations_read_uris(served: Served, web: Site, clip: bytes, tmp_path: Path) -> None:
    web.answers["/clip"] = by_ranges(clip)
    (tmp_path / "data.csv").write_text(f"video,label\n{web.url}/clip,shake\n{web.url}/none,shake\n")
    done = tubelet(
        *("evaluate", str(tmp_path / "data.csv"), "--clips", "1", "--server", served.target, "--json"),
        *("--out", str(tmp_path / "out")),
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert (report["videos"], [each["reason"] for each in report["skipped"]]) == (1, ["URI_NOT_FOUND"])


def test_missing_library_is_reported_in_one_sentence(tmp_path: Path) -> None:
    """As in an installation without the extra."""
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError('no aiohttp')")
    environment = {"PYTHONPATH": str(tmp_path), "TUBELET_FETCH__ALLOW": '["https://"]'}
    done = tubelet("serve", "--port", "0", "--metrics-port", "0", **environment)
    assert done.returncode == 1
    assert "pip install 'tubelet[http]'" in done.stderr
    assert "Traceback" not in done.stderr
    wrong = tubelet("serve", TUBELET_FETCH__ALLOW='["good.example"]')
    assert "fetch.allow: unsupported URI: it must start with one of" in wrong.stderr
