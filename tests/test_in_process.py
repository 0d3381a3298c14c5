"""``tubelet.classify`` in a user's program, from its start to its exit, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.running_server import Served
from tubelet.service.client import Client
from tubelet.service.server.app import SAMPLE_CLIP

_PRELUDE = """
import asyncio, json, os, sys, threading
import psutil, tubelet
from tubelet.service.engine.engine import Engine

loads = []
load = Engine.load
async def counted(self, store, spec):
    loads.append(spec.name)
    return await load(self, store, spec)
Engine.load = counted
video = sys.argv[1]
"""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in-process") / "clip.mp4"
    path.write_bytes(SAMPLE_CLIP.read_bytes())
    return path


def test_all_kinds_of_calls_share_workers_and_models(video: Path, served: Served) -> None:
    said = _run(
        """
        def names(answer):
            return [label.name for label in answer.labels]

        answers = {"path": names(tubelet.classify(video))}
        workers = {child.pid for child in psutil.Process().children(recursive=True)}
        with open(video, "rb") as file:
            answers["bytes"] = names(tubelet.classify(file.read(), top_k=2))
            file.seek(0)
            answers["file"] = names(tubelet.classify(file, windowing=tubelet.WholeVideo(), top_k=1))

        async def notebook():
            return tubelet.classify(video, thumbnails=2)

        answers["loop"] = names(answer := asyncio.run(notebook()))
        answers["jpegs"] = [thumbnail.jpeg[:2].hex() for thumbnail in answer.thumbnails]
        threads = [threading.Thread(target=lambda: names(tubelet.classify(video))) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        level = tubelet.EmbeddingLevel.UNIT
        vectors = tubelet.classify(video, embeddings=level, only_embeddings=True).embeddings
        answers["vectors"] = [list(vectors.vectors.shape), vectors.start_s[-1], vectors.level.value]
        seen = tubelet.explain(video, labels=["static"], windowing=tubelet.WholeVideo())
        answers["maps"] = [[*each.map.shape, each.question.label, each.segment.end_s] for each in seen.maps]
        answers["model"] = tubelet.classify(video, model="camera-motion-stack").model
        answers["again"] = names(tubelet.classify(video, model="camera-motion"))
        # A busy pool may end a worker that stood in for another one, but a second pool would share none.
        same = bool(workers & {child.pid for child in psutil.Process().children(recursive=True)})
        print(json.dumps({"answers": answers, "loads": loads, "workers": sorted(workers), "same": same}))
        """,
        video,
    )
    with Client(served.target) as client:
        expected = [label.name for label in client.classify(video).labels]
    answers = said["answers"]
    assert answers["path"] == answers["loop"] == answers["again"] == expected
    assert answers["bytes"] == expected[:2]
    assert len(answers["file"]) == 1
    assert answers["vectors"] == [[32, 160], 15.5, "unit"]
    assert answers["maps"] == [[16, 6, 6, "static", 16.0]]
    assert answers["jpegs"] == ["ffd8"] * 2
    assert answers["model"] == "camera-motion-stack"
    assert said["loads"] == ["camera-motion", "camera-motion-stack"]
    assert said["same"]
    assert not [pid for pid in said["workers"] if psutil.pid_exists(pid)]


def test_errors_are_raised_and_the_next_call_works(video: Path) -> None:
    said = _run(
        """
        from tubelet.service.errors import TubeletError

        reasons = []
        wrong = [(b"no video", {}), (video, {"model": "nope"}), (video, {"model": "a:b:c"})]
        wrong.append((video, {"windowing": tubelet.Views(clips=1000)}))
        for bad, options in [*wrong, ("https://example.com/clip.mp4", {})]:
            try:
                tubelet.classify(bad, **options)
            except TubeletError as error:
                reasons.append(error.reason)
        try:
            tubelet.classify("no-such-clip.mp4")
        except FileNotFoundError as error:
            reasons.append(error.filename)
        print(json.dumps({"reasons": reasons, "label": tubelet.classify(video).labels[0].name}))
        """,
        video,
    )
    assert said["reasons"] == [
        "NOT_A_VIDEO",
        "UNKNOWN_MODEL",
        "MALFORMED_OPTION",
        "MALFORMED_OPTION",
        "URI_NOT_ALLOWED",
        "no-such-clip.mp4",
    ]
    assert said["label"]


def test_forked_process_gets_a_clear_error(video: Path) -> None:
    said = _run(
        """
        tubelet.classify(video)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                tubelet.classify(video)
            except RuntimeError as error:
                os.write(writer, str(error).encode())
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": status, "message": os.read(reader, 1000).decode()}))
        """,
        video,
    )
    assert said["status"] == 0
    assert said["message"].startswith("this process was forked from one that had called tubelet.classify")


def test_ctrl_c_leaves_no_process_behind(video: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _script("while True: tubelet.classify(video); print(1, flush=True)"), video],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    program.stdout.readline()
    workers = psutil.Process(program.pid).children(recursive=True)
    assert workers
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def _script(body: str) -> str:
    return _PRELUDE + textwrap.dedent(body)


def _run(body: str, video: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _script(body), video],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
