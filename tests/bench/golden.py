"""Checks that two commits give the same answers: every clip, every kind of request, the order of events.

    python -m tests.bench.golden OLD NEW [--videos ../shared/videos] [--every 10] [--no-messages]

Checks OLD and NEW out, starts a server of each (float32, one thread, no embedding cache), and sends both the
same requests, one at a time: uploads, streams and ``file:`` URIs, with each option of windowing, ranges and
``fast``. Then come calls that fail: bad options, cancellation, overload, deadlines; and model reloads by
SIGHUP. Times, labels, codes, reasons and events must be equal, scores to 1e-5. Exit status 1 where something
differs. ``--every N`` asks only every N-th of the labelled clips. ``--no-messages`` compares no sentences,
only their reasons.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from rich.progress import track

from tubelet.v1 import classification_pb2 as pb
from tubelet.v1 import video_classifier_pb2 as rpc
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

ROOT = Path(__file__).resolve().parents[2]
CHUNK_BYTES = 256 << 10
TOLERANCE = 1e-5  # of scores: a batch's sums depend on its size
READY_S = 120.0
LAUNCHER = """
import importlib, sys
try:
    main = importlib.import_module("tubelet.service.cli.command").main
except ImportError:  # before tubelet was the one import name
    main = importlib.import_module("service.cli").app
sys.argv[0] = "tubelet"
main()
"""

Outcome = dict[str, Any]
Ask = Callable[["Server", Path, pb.ClassifyOptions], Outcome]


@dataclass(frozen=True, slots=True)
class Server:
    """A running server of one commit."""

    process: subprocess.Popen[bytes]
    stub: VideoClassifierStub
    store: Path
    checkout: Path


def main() -> None:
    arguments = _arguments()
    clips = _clips(arguments.videos, arguments.every)
    with ExitStack() as stack:
        commits = (arguments.old, arguments.new)
        old, new = (stack.enter_context(_served(each, arguments.videos)) for each in commits)
        differences, asked = [], 0
        for clip in track(clips, "clips"):
            for case, options in _cases().items():
                for way, ask in (("upload", upload), ("streaming", stream), ("file", by_uri)):
                    asked += 1
                    differences += _compared(
                        f"{clip.relative_to(arguments.videos)}, {case}, {way}",
                        *(ask(server, clip, options) for server in (old, new)),
                        messages=arguments.messages,
                    )
        for name, scenario in SCENARIOS.items():
            asked += 1
            outcomes = [scenario(server, clips[0]) for server in (old, new)]
            differences += _compared(name, *outcomes, messages=arguments.messages)
    for difference in differences:
        print(difference)
    print(f"{asked} asked of each, {len(clips)} clips, {len(differences)} differences")
    sys.exit(1 if differences else 0)


def upload(server: Server, clip: Path, options: pb.ClassifyOptions) -> Outcome:
    """Return the one answer to an upload, or its error."""

    def messages() -> Iterator[rpc.ClassifyRequest]:
        yield rpc.ClassifyRequest(options=options)
        yield from (rpc.ClassifyRequest(chunk=chunk) for chunk in _chunks(clip))

    return _outcome(lambda: {"answer": _plain(server.stub.Classify(messages(), timeout=300).classification)})


def stream(server: Server, clip: Path, options: pb.ClassifyOptions) -> Outcome:
    """Return the events of a streamed upload in their order, progress left out, or the error at its end."""
    return _streamed(server, options, _chunks(clip))


def by_uri(server: Server, clip: Path, options: pb.ClassifyOptions) -> Outcome:
    """Return the events for a clip that the server reads by itself."""
    asked = pb.ClassifyOptions()
    asked.CopyFrom(options)
    asked.uri = clip.resolve().as_uri()
    return _streamed(server, asked, ())


def bad_options(server: Server, clip: Path) -> Outcome:
    """Return the error of each kind of wrong option."""
    options = {
        "unknown model": pb.ClassifyOptions(model="no-such-model"),
        "unknown version": pb.ClassifyOptions(version="0.0.0"),
        "threshold": pb.ClassifyOptions(score_threshold=2),
        "window": pb.ClassifyOptions(sliding=pb.Sliding(window=Duration(seconds=-1))),
        "stride": pb.ClassifyOptions(sliding=pb.Sliding(stride=Duration(seconds=100_000))),
        "range": pb.ClassifyOptions(ranges=[pb.TimeRange(start=_duration(2), end=_duration(1))]),
        "clips": pb.ClassifyOptions(views=pb.Views(clips=1000)),
        "uri": pb.ClassifyOptions(uri="ftp://host/clip.mp4"),
        "uri not allowed": pb.ClassifyOptions(uri="file:///etc/passwd"),
        "uri not there": pb.ClassifyOptions(uri=(clip.parent / "no-such-clip.mp4").resolve().as_uri()),
    }
    return {name: _streamed(server, each, ()) for name, each in options.items()}


def no_upload(server: Server, clip: Path) -> Outcome:
    """Return the errors of an empty upload, of one that is no video and of one that breaks off."""
    whole = clip.read_bytes()
    parts = {"empty": (), "no video": (b"no video" * 1000,), "torn": (whole[: len(whole) // 3],)}
    return {name: _streamed(server, pb.ClassifyOptions(), chunks) for name, chunks in parts.items()}


def deadline(server: Server, clip: Path) -> Outcome:
    """Return how calls end whose deadline passes while they upload."""

    def slowly() -> Iterator[bytes]:
        yield clip.read_bytes()[:CHUNK_BYTES]
        time.sleep(3)

    return _streamed(server, pb.ClassifyOptions(), slowly(), timeout_s=1)


def cancel(server: Server, clip: Path) -> Outcome:
    """Return how a call ends that is cancelled after its first event, and the answer to the next one."""
    call = server.stub.ClassifyStreaming(_streaming_messages(pb.ClassifyOptions(), _chunks(clip)), timeout=60)
    first = next(call).WhichOneof("event")
    call.cancel()
    ended = _outcome(lambda: {"events": [event.WhichOneof("event") for event in call]})
    return {"first": first, "ended": ended, "next": upload(server, clip, pb.ClassifyOptions())}


def overload(server: Server, clip: Path) -> Outcome:
    """Return what a third call hears while two hold all places, and how the two end."""
    go_on, outcomes = threading.Event(), {}

    def held() -> Iterator[bytes]:
        chunks = list(_chunks(clip))
        yield chunks[0][:1000]
        go_on.wait(30)
        yield chunks[0][1000:]
        yield from chunks[1:]

    def hold(number: int) -> None:
        outcomes[number] = _streamed(server, pb.ClassifyOptions(), held())

    holding = [threading.Thread(target=hold, args=(number,)) for number in range(2)]
    for thread in holding:
        thread.start()
    time.sleep(1)
    refused = _streamed(server, pb.ClassifyOptions(), _chunks(clip))
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
    there = _models_after_hup(server, lambda names: "camera-motion-copy" in names)
    answer = upload(server, clip, pb.ClassifyOptions(model="camera-motion-copy"))
    shutil.rmtree(folder)
    gone = _models_after_hup(server, lambda names: "camera-motion-copy" not in names)
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", help="a commit")
    parser.add_argument("new", help="another one")
    parser.add_argument("--videos", type=Path, default=ROOT.parent / "shared" / "videos")
    parser.add_argument("--every", type=int, default=10, help="every N-th of the labelled clips")
    parser.add_argument("--no-messages", dest="messages", action="store_false")
    return parser.parse_args()


def _clips(videos: Path, every: int) -> list[Path]:
    def files(folder: str) -> list[Path]:
        return sorted(
            each for each in (videos / folder).rglob("*") if each.is_file() and each.suffix != ".json"
        )

    return [*files("real"), *files("odd"), *files("labelled")[::every]]


def _cases() -> dict[str, pb.ClassifyOptions]:
    seconds = _duration
    return {
        "sliding": pb.ClassifyOptions(top_k=10),
        "dense": pb.ClassifyOptions(sliding=pb.Sliding(window=seconds(1), stride=seconds(0.25)), top_k=3),
        "whole": pb.ClassifyOptions(whole_video=pb.WholeVideo(), top_k=10),
        "views": pb.ClassifyOptions(views=pb.Views(clips=3, crops=3), top_k=10),
        "ranges": pb.ClassifyOptions(ranges=[pb.TimeRange(start=seconds(0.3), end=seconds(1.4))], top_k=10),
        "fast": pb.ClassifyOptions(fast=True, top_k=10),
    }


@contextmanager
def _served(commit: str, videos: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="golden-") as name:
        folder = Path(name)
        checkout, store = folder / "checkout", folder / "store"
        checkout.mkdir()
        store.mkdir()
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", checkout], input=archive, check=True)
        python = _python_of(checkout, folder / "venv")
        port = _free_port()
        configuration = folder / "tubelet.toml"
        configuration.write_text(
            f'server.port = {port}\nserver.host = "127.0.0.1"\nserver.metrics_port = 0\n'
            "server.max_videos_in_flight = 2\n"
            'engine.precision = "fp32"\nengine.threads = 1\nengine.cache_bytes = 0\n'
            f'models.store = "{store}"\n'
            f'fetch.allow = ["{videos.resolve().as_uri()}/"]\n'
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TUBELET_")}
        process = subprocess.Popen(
            [python, "-c", LAUNCHER, "serve", "--config", configuration],
            stdout=subprocess.DEVNULL,
            stderr=(log := folder / "log").open("wb"),
            env=environment,
            cwd=folder,
        )
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                _wait_until_ready(process, channel, log)
                yield Server(process, VideoClassifierStub(channel), store, checkout)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _python_of(checkout: Path, folder: Path) -> Path:
    """Make an environment that sees this one's libraries, but the checkout's tubelet alone."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    seen = dict.fromkeys(
        [sysconfig.get_path("purelib"), *(each for each in sys.path if "site-packages" in each)]
    )
    # A path alone: files of an editable installation in such a folder are not read.
    (site / "libraries.pth").write_text("\n".join(seen) + "\n")
    (site / "checkout.pth").write_text(f"{checkout / 'protos'}\n{checkout}\n")
    return folder / "bin" / "python"


def _wait_until_ready(process: subprocess.Popen[bytes], channel: grpc.Channel, log: Path) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
        except grpc.RpcError:
            pass
        time.sleep(0.2)
    sys.exit(f"a server did not get ready:\n{log.read_text()}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _models_after_hup(server: Server, is_reached: Callable[[set[str]], bool]) -> list[str]:
    server.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 60
    while True:
        listed = server.stub.ListModels(rpc.ListModelsRequest(), timeout=30).models
        names = {model.name for model in listed}
        if is_reached(names) or time.monotonic() > until:
            return sorted(f"{model.name} {model.version}" for model in listed)
        time.sleep(0.2)


def _streaming_messages(
    options: pb.ClassifyOptions, chunks: Iterable[bytes]
) -> Iterator[rpc.ClassifyStreamingRequest]:
    yield rpc.ClassifyStreamingRequest(options=options)
    for chunk in chunks:
        yield rpc.ClassifyStreamingRequest(chunk=chunk)


def _streamed(
    server: Server, options: pb.ClassifyOptions, chunks: Iterable[bytes], timeout_s: float = 300
) -> Outcome:
    def events() -> Outcome:
        received: list[dict[str, Any]] = []
        for event in server.stub.ClassifyStreaming(_streaming_messages(options, chunks), timeout=timeout_s):
            kind = event.WhichOneof("event")
            if kind == "video":  # as much as a header says, or more where more has come by then
                received.append({kind: {}})
            elif kind != "progress":
                received.append({kind: _plain(getattr(event, kind))})
        return {"events": received}

    return _outcome(events)


def _outcome(call: Callable[[], Outcome]) -> Outcome:
    try:
        return call()
    except grpc.RpcError as error:
        call_error: Any = error  # a grpc.Call, too
        status, reason = rpc_status.from_call(call_error), ""
        for detail in status.details if status else ():
            info = ErrorInfo()
            if detail.Unpack(info):
                reason = info.reason
        return {"code": call_error.code().name, "reason": reason, "message": call_error.details()}


def _plain(message: Any) -> dict[str, Any]:
    content = MessageToDict(message, preserving_proto_field_name=True)
    content.pop("stage_seconds", None)
    return content


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9))


def _chunks(clip: Path) -> Iterator[bytes]:
    with clip.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _compared(name: str, old: Any, new: Any, *, messages: bool) -> list[str]:
    """Return a line for each place where two outcomes differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if messages or key not in ("message", "warnings")]
        return [
            line
            for key in keys
            for line in _compared(f"{name}.{key}", old.get(key), new.get(key), messages=messages)
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for number, pair in enumerate(zip(old, new, strict=True))
            for line in _compared(f"{name}[{number}]", *pair, messages=messages)
        ]
    if isinstance(old, float) and isinstance(new, float) and abs(old - new) <= TOLERANCE:
        return []
    return [] if old == new else [f"{name}: {old!r} before, {new!r} now"]


if __name__ == "__main__":
    main()
