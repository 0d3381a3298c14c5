"""Videos are classified while they are uploaded, and live streams while they last."""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import pytest

from tests.support.mp4_boxes import reverse_samples
from tests.support.remux import assert_same, remuxed
from tests.support.running_server import Served, serving, wait_until
from tests.support.sample_clip import Camera, camera_move, encode, panning_clip, render_view, town
from tubelet.service.client import Client, ServerError
from tubelet.service.types.request import Options, Sliding
from tubelet.service.types.result import Classification, Segment
from tubelet.service.types.video import NS_PER_S, VideoMetadata

_SECONDS = 6.0
_CONTAINERS = {
    "matroska": ("matroska", {}),
    "mpegts": ("mpegts", {}),
    "flv": ("flv", {}),
    "fast start": ("mp4", {"movflags": "faststart"}),
    "fragmented": ("mp4", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}),
}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A server that writes the second half of uploads on threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tubelet.service.ingest.anonymous_file._DIRECT_BYTES", 30_000)
        with serving(engine={"precision": "fp32"}) as server:
            yield server


@pytest.fixture(scope="module")
def clip() -> bytes:
    return panning_clip(_SECONDS)


class Tap:
    """A file that the test feeds; reads wait for more bytes until the test ends it."""

    def __init__(self) -> None:
        self._chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.is_open = True

    def feed(self, data: bytes) -> None:
        self._chunks.put(data)

    def end(self) -> None:
        self.is_open = False
        self._chunks.put(b"")

    def fail(self) -> None:
        self._chunks.put(None)

    def read(self, _: int = -1) -> bytes:
        if (chunk := self._chunks.get()) is None:
            raise ConnectionAbortedError("the camera is gone")  # gRPC cancels the call
        return chunk


@pytest.mark.parametrize("name", _CONTAINERS)
def test_segments_arrive_before_the_upload_ends(client: Client, clip: bytes, name: str) -> None:
    video = remuxed(clip, *_CONTAINERS[name])
    whole = client.classify(video)
    tap = Tap()
    tap.feed(video[: len(video) * 7 // 10])
    early, rest = [], []
    for event in client.stream(tap):  # pyright: ignore[reportArgumentType]
        (early if tap.is_open else rest).append(event)
        if tap.is_open and sum(isinstance(each, Segment) for each in early) == 2:
            tap.feed(video[len(video) * 7 // 10 :])
            tap.end()
    assert isinstance(early[0], VideoMetadata)
    answer = rest[-1]
    assert isinstance(answer, Classification)
    assert_same(answer, whole)
    assert answer.metadata.size_bytes == len(video)
    assert answer.metadata.frames == 150
    assert [each for each in early + rest if isinstance(each, Segment)] == list(answer.segments)


@pytest.mark.parametrize("pieces", [1, 30])
def test_index_with_frames_out_of_order_is_followed(client: Client, clip: bytes, pieces: int) -> None:
    """The movie box comes first, but the samples after it are not in the order of presentation."""
    in_order = remuxed(clip, *_CONTAINERS["fast start"])
    video = reverse_samples(in_order)
    assert video != in_order
    size = -(-len(video) // pieces)
    tap = Tap()
    for place in range(0, len(video), size):
        tap.feed(video[place : place + size])
    tap.end()
    events = list(client.stream(tap))  # pyright: ignore[reportArgumentType]
    answer = events[-1]
    assert isinstance(answer, Classification)
    wanted = client.classify(in_order)
    assert_same(answer, replace(wanted, metadata=replace(wanted.metadata, size_bytes=len(video))))
    assert [each for each in events if isinstance(each, Segment)] == list(answer.segments)


@pytest.mark.parametrize("frames", [194, 196, 198, 200, 202, 294, 296, 298, 300, 346, 349, 350])
def test_live_answer_is_right_where_the_video_ends_near_a_unit(client: Client, frames: int) -> None:
    """The frames of the last unit arrive before it is known whether the video contains the whole unit."""
    scene, camera = town(), Camera(400, 500)
    cameras = islice(
        chain(
            camera_move(camera, Camera(700, 500), 1.7, fps=100),
            camera_move(Camera(700, 500), camera, 2, fps=100),
        ),
        frames,
    )
    short = encode((render_view(scene, each, (160, 120)) for each in cameras), fps=100)
    options = Options(windowing=Sliding(2 * NS_PER_S, NS_PER_S))
    # A range needs the length first, which is behind the frames there.
    at_once = client.classify(short, replace(options, ranges_ns=((0, 100 * NS_PER_S),)))
    assert at_once.metadata.duration_ns == pytest.approx(frames * NS_PER_S / 100, abs=1000)
    events = list(client.stream(remuxed(short, "matroska", {}), options))
    answer = events[-1]
    assert isinstance(answer, Classification)
    assert [each for each in events if isinstance(each, Segment)] == list(answer.segments)
    for one, other in zip(answer.segments, at_once.segments, strict=True):
        assert one.end_ns == pytest.approx(other.end_ns, abs=NS_PER_S / 500)
        assert {each.name: each.score for each in one.labels} == pytest.approx(
            {each.name: each.score for each in other.labels}, abs=0.02
        )


def test_a_recording_of_a_browser_has_no_duration(client: Client, clip: bytes) -> None:
    """As MediaRecorder writes it: clusters of unknown size, and no index at the end."""
    video = remuxed(clip, "matroska", {"live": "1"})
    tap = Tap()
    tap.feed(video[: len(video) * 8 // 10])
    events = client.stream(tap)  # pyright: ignore[reportArgumentType]
    metadata = next(events)
    assert isinstance(metadata, VideoMetadata)
    assert metadata.duration_ns == 0
    assert isinstance(next(events), Segment)
    tap.feed(video[len(video) * 8 // 10 :])
    tap.end()
    answer = list(events)[-1]
    assert isinstance(answer, Classification)
    assert answer.metadata.duration_ns == pytest.approx(_SECONDS * NS_PER_S, abs=NS_PER_S / 20)
    assert answer.warnings == ()
    assert answer.labels[0].name == "pan_right"


def test_live_stream_gets_segments_while_it_lasts(client: Client, clip: bytes) -> None:
    """If a second is fed at a time, a segment of 0.5 s is known at most a second after its end."""
    video = remuxed(clip, "mpegts", {})
    seconds = [video[len(video) * part // 6 : len(video) * (part + 1) // 6] for part in range(6)]
    tap = Tap()
    tap.feed(seconds.pop(0))
    fed, ends = 1, []
    options = Options(windowing=Sliding(NS_PER_S, NS_PER_S // 2))
    events = client.stream(tap, options)  # pyright: ignore[reportArgumentType]
    while seconds:
        tap.feed(seconds.pop(0))
        fed += 1
        while not ends or ends[-1] < (fed - 1.5) * NS_PER_S:
            event = next(events)
            if isinstance(event, Segment):
                ends.append(event.end_ns)
    tap.end()
    ends += [event.end_ns for event in events if isinstance(event, Segment)]
    assert ends == [NS_PER_S * half // 2 for half in range(1, 13)]


def test_options_that_need_the_whole_video_wait_for_it(client: Client, clip: bytes) -> None:
    """The index of this file comes after its frames."""
    whole = client.classify(clip)
    tap = Tap()
    for start in range(0, len(clip), 10_000):
        tap.feed(clip[start : start + 10_000])
    tap.end()
    answer = list(client.stream(tap))[-1]  # pyright: ignore[reportArgumentType]
    assert isinstance(answer, Classification)
    assert_same(answer, whole)


def test_contradictory_timestamps_get_one_answer(client: Client) -> None:
    """Decoding times span ten seconds, but all presentation times equal the first one."""
    stripes = np.tile(np.arange(0, 192, 3, dtype=np.uint8)[:, None], (64, 1, 3))
    frames = (np.roll(stripes, number, 1) for number in range(250))
    video = _shown_at_once(encode(frames, fps=25, container="mpegts", bf="2"))
    segments = client.classify(video, timeout_s=60).segments
    starts = [segment.start_ns for segment in segments]
    assert len(starts) > 1
    assert starts == sorted(set(starts))


def _shown_at_once(stream: bytes) -> bytes:
    """Return an MPEG-TS whose presentation timestamps are all made equal (ISO 13818-1, 2.4.3.7)."""
    data, first = bytearray(stream), None
    for packet in range(0, len(data), 188):
        body = packet + 4 + (1 + data[packet + 4] if data[packet + 3] & 0x20 else 0)
        starts = data[packet + 1] & 0x40 and data[body : body + 4] == b"\0\0\1\xe0"
        if starts and data[body + 7] >> 6 == 3:
            shown = slice(body + 9, body + 14)
            first = first or data[shown]
            data[shown] = first
    return bytes(data)


@pytest.mark.parametrize("name", ["matroska", "flv", "mpegts"])
@pytest.mark.parametrize("percent", [1, 50])
def test_cancelled_live_upload_frees_its_worker(
    served: Served, client: Client, clip: bytes, name: str, percent: int
) -> None:
    video = remuxed(clip, *_CONTAINERS[name])
    for _ in range(3):
        tap = Tap()
        tap.feed(video[: len(video) * percent // 100])
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(list, client.stream(tap))  # pyright: ignore[reportArgumentType]
            wait_until(served, "tubelet_decoders_busy", 1)
            tap.fail()
            with pytest.raises(ServerError):
                answer.result()
        wait_until(served, "tubelet_decoders_busy", 0)
    assert client.classify(video).metadata.frames == 150
    assert served.metric("tubelet_decoder_failures_total") == 0
