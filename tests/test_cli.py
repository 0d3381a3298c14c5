"""The commands as a user runs them: real processes, real exit codes."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import IO

import pytest
from typer.testing import CliRunner

from models.store import ZOO
from service.cli import app
from service.client import Client
from service.server import SAMPLE_CLIP
from tests.clips import pan
from tests.serving import Served

TUBELET = str(Path(sys.executable).with_name("tubelet"))


def tubelet(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TUBELET, *arguments], capture_output=True, text=True, timeout=100, env=os.environ | environment
    )


@pytest.fixture
def clips(tmp_path: Path) -> tuple[str, str]:
    """A good clip and a bad one."""
    good, bad = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    good.write_bytes(pan(2.0))
    bad.write_text("not a video")
    return str(good), str(bad)


@pytest.mark.parametrize("where", ["a server", "this process"])
def test_classify_prints_an_object_a_video(served: Served, clips: tuple[str, str], where: str) -> None:
    good, bad = clips
    server = ("--server", served.target) if where == "a server" else ()
    done = tubelet("classify", bad, good, "missing.mp4", "--json", *server)
    failed, answer, missing = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 1
    assert failed["video"] == bad
    assert (failed["error"]["code"], failed["error"]["reason"]) == ("INVALID_ARGUMENT", "NOT_A_VIDEO")
    assert missing["error"]["reason"] == "FILE_NOT_READABLE"
    assert answer["video"] == good
    assert answer["model"] == "camera-motion"
    assert answer["duration_s"] == 2.0
    assert answer["labels"][0]["label"] == "pan_right"
    assert [(segment["start_s"], segment["end_s"]) for segment in answer["segments"]] == [(0, 1), (1, 2)]
    assert 0 < answer["segments"][0]["labels"][0]["score"] <= 1


@pytest.mark.parametrize("where", ["a server", "this process"])
def test_a_model_that_is_not_there_is_an_object_a_video(served: Served, where: str) -> None:
    server = ("--server", served.target) if where == "a server" else ()
    sample = str(SAMPLE_CLIP)
    done = tubelet("classify", sample, sample, "--model", "nope", "--json", *server)
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["video"] for row in rows] == [sample] * 2
    for row in rows:
        assert (row["error"]["code"], row["error"]["reason"]) == ("NOT_FOUND", "UNKNOWN_MODEL")
        assert "no model 'nope'" in row["error"]["message"]


def test_classify_prints_text_for_people(served: Served, clips: tuple[str, str]) -> None:
    ok = {"method": "ClassifyStreaming", "code": "OK"}
    before = served.metric("tubelet_requests_total", **ok)
    done = tubelet("classify", clips[0], "--server", served.target, "--whole-video", "--top-k", "1")
    assert done.returncode == 0, done.stderr
    assert served.metric("tubelet_requests_total", **ok) == before + 1
    assert "2.00 s, 320x240, 25 fps, 50 frames, h264" in done.stdout
    assert "0.00 -     2.00 s   pan_right" in done.stdout
    assert "whole video" in done.stdout


def test_more_videos_than_the_server_takes_wait_for_their_turn(clips: tuple[str, str]) -> None:
    with serving(TUBELET_SERVER__MAX_VIDEOS_IN_FLIGHT="1", TUBELET_SERVER__RETRY_AFTER_S="0.2") as (
        _,
        target,
    ):
        done = tubelet("classify", *[clips[0]] * 6, "--json", "--server", target)
    assert done.returncode == 0
    assert [json.loads(line)["labels"][0]["label"] for line in done.stdout.splitlines()] == 6 * ["pan_right"]


def test_views_are_one_segment_and_exclude_other_windows(served: Served, clips: tuple[str, str]) -> None:
    command = ("classify", clips[0], "--server", served.target, "--json")
    answer = json.loads(tubelet(*command, "--clips", "3", "--crops", "3").stdout)
    assert [(segment["start_s"], segment["end_s"]) for segment in answer["segments"]] == [(0, 2)]
    assert answer["labels"][0]["label"] == "pan_right"
    refused = json.loads(tubelet(*command, "--crops", "2").stdout)
    assert "2 crops are neither 1 nor 3" in refused["error"]["message"]
    assert tubelet(*command, "--clips", "3", "--stride", "1").returncode == 2


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("classify", "--window", "nan"),
        ("classify", "--window", "inf"),
        ("classify", "--stride", "nan"),
        ("classify", "--stride", "1e+300"),
        ("classify", "--range", "1-inf"),
        ("classify", "--range", "nan-2"),
        ("models import", "--window", "inf"),
    ],
)
def test_seconds_that_are_no_time_are_named(command: str, option: str, value: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "x", option, value])
    said = " ".join(done.stderr.replace("\u2502", " ").split())
    assert done.exit_code == 2, said
    assert option in said
    assert value in said.partition("found")[2]


def test_no_server_is_one_sentence(clips: tuple[str, str]) -> None:
    done = tubelet("classify", clips[0], "--server", "127.0.0.1:1", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "UNAVAILABLE"
    done = tubelet("models", "list", "--server", "127.0.0.1:1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "UNAVAILABLE" in done.stderr


def test_models_of_a_server_and_of_this_installation(served: Served) -> None:
    here = tubelet("models", "list", "--json")
    there = tubelet("models", "list", "--json", "--server", served.target)
    by_name = [
        sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda row: row["model"])
        for done in (here, there)
    ]
    assert by_name[0] == by_name[1]
    assert [row["model"] for row in by_name[0] if row["default"]] == ["camera-motion"]
    _header, first, *_others = tubelet("models", "list", COLUMNS="30").stdout.splitlines()
    assert first.split()[0] == "camera-motion"
    assert first.split()[-1] == "default"


@pytest.mark.parametrize("command", [["models", "list"], ["classify", "CLIP"], ["evaluate", "CLIP"]])
def test_who_asks_a_server_does_not_wait_for_torch(
    served: Served, clips: tuple[str, str], command: list[str]
) -> None:
    """Importing it takes longer than the answer."""
    asked = [clips[0] if word == "CLIP" else word for word in command]
    if command[0] == "evaluate":
        Path(asked[1]).with_suffix(".csv").write_text(f"{clips[0]},pan_right\n")
        asked[1:] = [str(Path(asked[1]).with_suffix(".csv")), "--out", str(Path(asked[1]).parent / "out")]
    script = f"""
import sys
from service.cli import app
status = app({[*asked, "--server", served.target]!r}, standalone_mode=False)
print(status, {{"torch", "av", "transformers"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1] in ("None set()", "0 set()"), done.stderr


@pytest.mark.parametrize(
    ("toml", "environment", "says"),
    [
        ("[upload]\nmax_byte = 5\n", {}, "upload.max_byte: no such key (closest: upload.max_bytes)"),
        ("[servr]\nport = 1\n", {}, "servr: no such key (closest: server)"),
        (
            "[decode]\nworkers = 0\n",
            {},
            "decode.workers: Input should be greater than or equal to 1; found 0",
        ),
        (
            "",
            {"TUBELET_UPLOAD__MAX_BYTES": "-1"},
            "upload.max_bytes: Input should be greater than or equal to 1",
        ),
        ("[models]\ndefault = 'nobody'\n", {}, "no model 'nobody' in the store"),
        (
            "[models]\nload = ['camera-motion', 'nope']\n",
            {},
            "models.load names 'nope', but there is no such model; there are: camera-motion",
        ),
        (
            "",
            {"TUBELET_MODELS__STORE": "/nowhere"},
            "models.store is '/nowhere', but there is no",
        ),
        ("[engine]\ndevice = 'cuda:99'\n", {}, "'cuda:99', but torch sees"),
        ("[engine]\ndevice = 'tpu'\n", {}, "engine.device: String should match pattern"),
        ("[server\n", {}, "tubelet.toml is not TOML"),
        ("", {"TUBELET_SERVRE__PORT": "1"}, "TUBELET_SERVRE__PORT in the environment"),
        ("", {"TUBELET_FETCH__ALLOW": "file:///work"}, "TUBELET_FETCH__ALLOW in the environment: a list is"),
        ("[upload]\ndirectory = '/nowhere'\n", {}, "upload.directory"),
    ],
)
def test_a_wrong_configuration_is_named(
    tmp_path: Path, toml: str, environment: dict[str, str], says: str
) -> None:
    (tmp_path / "tubelet.toml").write_text(toml)
    done = tubelet("serve", "--config", str(tmp_path / "tubelet.toml"), "--port", "0", **environment)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--port", "--metrics-port"])
def test_a_port_that_is_taken_is_one_sentence_before_models_are_loaded(
    served: Served, tmp_path: Path, option: str
) -> None:
    (tmp_path / "tubelet.toml").write_text("[models]\ndefault = 'nobody'\n")
    ports = {"--port": "0", "--metrics-port": "0", option: str(served.server.port)}
    done = tubelet("serve", "--config", str(tmp_path / "tubelet.toml"), *itertools.chain(*ports.items()))
    assert done.returncode == 1
    assert f"cannot listen on 0.0.0.0:{served.server.port}" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def serving(
    *arguments: str, log: int | IO[str] = subprocess.DEVNULL, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server's process, ready, and where it listens; it has to drain well at the end."""
    with subprocess.Popen(
        [TUBELET, "serve", "--port", "0", "--metrics-port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=os.environ | environment,
    ) as process:
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            assert ready.startswith("ready: gRPC on port ")
            yield process, f"127.0.0.1:{ready.split('port ')[1].split(',')[0]}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def test_serve_gets_ready_answers_and_drains_on_sigterm(clips: tuple[str, str]) -> None:
    with serving() as (_, target):
        done = tubelet("classify", clips[0], "--server", target, "--json")
        assert json.loads(done.stdout)["labels"][0]["label"] == "pan_right"


@pytest.mark.parametrize("moment", ["importing", "loading"])
def test_serve_ends_on_sigterm_before_it_is_ready(tmp_path: Path, moment: str) -> None:
    log = tmp_path / "log"
    with (
        log.open("w") as file,
        subprocess.Popen([TUBELET, "serve", "--port", "0", "--metrics-port", "0"], stderr=file) as process,
    ):
        try:
            while not (
                _catches_sigterm(process.pid) if moment == "importing" else "held by" in log.read_text()
            ):
                assert process.poll() is None
            process.send_signal(signal.SIGHUP)  # has nothing to reread yet
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert "ready after" not in log.read_text()
    assert "Traceback" not in log.read_text()


def _catches_sigterm(pid: int) -> bool:
    """Has the process a handler of its own? proc_pid_status(5)"""
    mask = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return mask is not None and bool(int(mask[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_serve_changes_its_models_on_sighup_while_it_answers(clips: tuple[str, str], tmp_path: Path) -> None:
    """No request fails, and the next ones are answered by the new version."""
    folder = tmp_path / "store" / "camera-motion" / "99"
    (tmp_path / "store").mkdir()
    with (
        serving(TUBELET_MODELS__STORE=str(tmp_path / "store")) as (process, target),
        Client(target) as client,
    ):

        def answers_until(version: str) -> None:
            while True:
                answer = client.classify(clips[0])
                assert answer.labels[0].name == "pan_right"
                if answer.version == version:
                    return

        old = client.classify(clips[0]).version
        shutil.copytree(ZOO / "camera-motion", folder)
        spec = folder / "model.toml"
        spec.write_text(spec.read_text().replace(f'version = "{old}"', 'version = "99"'))
        process.send_signal(signal.SIGHUP)
        answers_until("99")
        shutil.rmtree(folder)
        process.send_signal(signal.SIGHUP)
        answers_until(old)


def test_a_configuration_that_became_wrong_is_a_line_a_problem(tmp_path: Path) -> None:
    config, log = tmp_path / "tubelet.toml", tmp_path / "log"
    config.touch()
    with log.open("w") as file, serving("--config", str(config), log=file) as (process, _):
        before = log.read_text()
        config.write_text("[server]\nretry_after_s = 3\n")
        process.send_signal(signal.SIGHUP)
        says = "only models change without a restart: server stay as they were"
        while says not in log.read_text() or "serving the models of now" not in log.read_text():
            assert process.poll() is None
        before = log.read_text()
        config.write_text("[models]\ndefalt = 'a'\nload = 3\n")
        process.send_signal(signal.SIGHUP)
        said = ""
        for _ in range(400):
            said = log.read_text().removeprefix(before)
            if said.count("stay as they were") == 2:
                break
            sleep(0.05)
    assert [line.partition(": ")[2] for line in said.splitlines()] == [
        "rereading the models",
        "the models stay as they were: models.load: Input should be a list; found 3",
        "the models stay as they were: models.defalt: no such key (closest: models.default)",
    ]


def test_the_demo_shows_true_labels_and_metrics() -> None:
    done = tubelet("demo", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    for label in ("static", "pan_right", "zoom_in", "tilt_up", "roll_cw"):
        assert f"s   {label} " in done.stdout
    assert (
        "tubelet_requests_total{code='OK',method='ClassifyStreaming',model='camera-motion'} 1" in done.stdout
    )


@pytest.mark.parametrize(
    ("video", "says"),
    [
        ("/nope", "cannot read /nope: No such file or directory"),
        ("file:///nope", "by its path; file:///nope is a URI"),
    ],
)
def test_the_demo_looks_at_the_file_first(video: str, says: str) -> None:
    done = tubelet("demo", video)
    assert done.returncode == 1
    assert says in done.stderr
    assert "ready" not in done.stdout


def test_the_demo_names_a_wrong_configuration() -> None:
    done = tubelet("demo", TUBELET_SERVER__DRAIN_S="-5")
    assert done.returncode == 2
    assert "server.drain_s" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_scheme_that_is_not_taken_is_told_which_are(served: Served) -> None:
    done = tubelet("classify", "ftp://a/b.mp4", "--server", served.target)
    assert done.returncode == 1
    assert "a URI begins with one of file://, http://" in done.stdout
