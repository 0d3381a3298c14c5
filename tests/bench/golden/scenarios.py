"""Calls that do not end well, and models that change while the server runs."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from tests.bench.golden.calls import (
    CHUNK_BYTES,
    Outcome,
    chunks_of,
    outcome_of,
    streamed,
    streaming_messages,
    upload,
)
from tests.bench.golden.servers import Server, models_after_hup
from tubelet.v1 import classification_pb2 as pb


def bad_options(server: Server, clip: Path) -> Outcome:
    """Return the error of each kind of wrong option."""
    options = {
        "unknown model": pb.ClassifyOptions(model="no-such-model"),
        "unknown version": pb.ClassifyOptions(version="0.0.0"),
        "threshold": pb.ClassifyOptions(score_threshold=2),
        "window": pb.ClassifyOptions(sliding=pb.Sliding(window=Duration(seconds=-1))),
        "stride": pb.ClassifyOptions(sliding=pb.Sliding(stride=Duration(seconds=100_000))),
        "range": pb.ClassifyOptions(ranges=[pb.TimeRange(start=duration(2), end=duration(1))]),
        "clips": pb.ClassifyOptions(views=pb.Views(clips=1000)),
        "uri": pb.ClassifyOptions(uri="ftp://host/clip.mp4"),
        "uri not allowed": pb.ClassifyOptions(uri="file:///etc/passwd"),
        "uri not there": pb.ClassifyOptions(uri=(clip.parent / "no-such-clip.mp4").resolve().as_uri()),
    }
    return {name: streamed(server, each, ()) for name, each in options.items()}


def no_upload(server: Server, clip: Path) -> Outcome:
    """Return the errors of an empty upload, of one that is no video and of one that breaks off."""
    whole = clip.read_bytes()
    parts = {"empty": (), "no video": (b"no video" * 1000,), "torn": (whole[: len(whole) // 3],)}
    return {name: streamed(server, pb.ClassifyOptions(), chunks) for name, chunks in parts.items()}


def deadline(server: Server, clip: Path) -> Outcome:
    """Return how calls end whose deadline passes while they upload."""

    ended = threading.Event()

    def unfinished() -> Iterator[bytes]:
        yield clip.read_bytes()[:CHUNK_BYTES]
        ended.wait()

    outcome = streamed(server, pb.ClassifyOptions(), unfinished(), timeout_s=1)
    ended.set()
    return outcome


def cancel(server: Server, clip: Path) -> Outcome:
    """Return how a call ends that is cancelled after its first event, and the answer to the next one."""
    call = server.stub.ClassifyStreaming(
        streaming_messages(pb.ClassifyOptions(), chunks_of(clip)), timeout=60
    )
    first = next(call).WhichOneof("event")
    call.cancel()
    ended = outcome_of(lambda: {"events": [event.WhichOneof("event") for event in call]})
    return {"first": first, "ended": ended, "next": upload(server, clip, pb.ClassifyOptions())}


def overload(server: Server, clip: Path) -> Outcome:
    """Return what a third call hears while two hold all places, and how the two end."""
    go_on, outcomes = threading.Event(), {}

    def held() -> Iterator[bytes]:
        chunks = list(chunks_of(clip))
        yield chunks[0][:1000]
        go_on.wait(30)
        yield chunks[0][1000:]
        yield from chunks[1:]

    def hold(number: int) -> None:
        outcomes[number] = streamed(server, pb.ClassifyOptions(), held())

    holding = [threading.Thread(target=hold, args=(number,)) for number in range(2)]
    for thread in holding:
        thread.start()
    server.wait_for_videos(2)
    refused = streamed(server, pb.ClassifyOptions(), chunks_of(clip))
    go_on.set()
    for thread in holding:
        thread.join()
    return {"refused": refused, "held": [outcomes[number] for number in range(2)]}


def reload(server: Server, clip: Path) -> Outcome:
    """Return the models as a version comes and goes by SIGHUP, and who answers in between."""
    folder = server.store / "camera-motion-copy"
    shutil.copytree(server.checkout / "models" / "zoo" / "camera-motion", folder)
    description = folder / "model.toml"
    description.write_text(description.read_text().replace('"camera-motion"', '"camera-motion-copy"', 1))
    there = models_after_hup(server, lambda names: "camera-motion-copy" in names)
    answer = upload(server, clip, pb.ClassifyOptions(model="camera-motion-copy"))
    shutil.rmtree(folder)
    gone = models_after_hup(server, lambda names: "camera-motion-copy" not in names)
    refused = upload(server, clip, pb.ClassifyOptions(model="camera-motion-copy"))
    return {"there": there, "answer": answer, "gone": gone, "refused": refused}


SCENARIOS = {
    "bad options": bad_options,
    "no upload": no_upload,
    "deadline": deadline,
    "cancel": cancel,
    "overload": overload,
    "models that change": reload,
}


def duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9))
