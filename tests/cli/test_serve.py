"""The server's process: configuration, ports and signals."""

import fcntl
import itertools
import json
import os
import pty
import re
import resource
import signal
import subprocess
import termios
import urllib.error
import urllib.request
from pathlib import Path
from time import sleep

import grpc
import psutil
import pytest

from tests.support.cli_process import TUBELET, serving, tubelet
from tests.support.running_server import Served, Upload
from tubelet.service.client import Client
from tubelet.service.server.listening import resolve, with_port
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub


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
            "[models]\ndefault = 'camera-motion:7'\n",
            {},
            "no model 'camera-motion:7' in the store; it has camera-motion:",
        ),
        ("[models]\ndefault = 'a:b:c'\n", {}, "models.default: a model is written NAME or NAME:VERSION"),
        ("", {"TUBELET_MODELS__LOAD": '[":1"]'}, "models.load: a model is written NAME or NAME:VERSION"),
        (
            "[models]\nload = ['camera-motion', 'nope']\n",
            {},
            "models.load names 'nope', which the store does not have; it has: camera-motion",
        ),
        (
            "",
            {"TUBELET_MODELS__STORE": "/nowhere"},
            "models.store is '/nowhere', but that folder does not exist",
        ),
        ("[engine]\ndevice = 'cuda:99'\n", {}, "'cuda:99', but torch sees"),
        ("[engine]\ndevice = 'tpu'\n", {}, "engine.device: String should match pattern"),
        ("[server\n", {}, "tubelet.toml is not TOML"),
        ("", {"TUBELET_SERVRE__PORT": "1"}, "TUBELET_SERVRE__PORT in the environment"),
        ("", {"TUBELET_FETCH__ALLOW": "file:///work"}, "TUBELET_FETCH__ALLOW in the environment: a list is"),
        ("[upload]\ndirectory = '/nowhere'\n", {}, "upload.directory"),
    ],
)
def test_serve_names_the_wrong_setting(
    tmp_path: Path, toml: str, environment: dict[str, str], says: str
) -> None:
    (tmp_path / "tubelet.toml").write_text(toml)
    done = tubelet("serve", "--config", str(tmp_path / "tubelet.toml"), "--port", "0", **environment)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--port", "--metrics-port"])
def test_occupied_port_is_one_sentence_before_models_load(
    served: Served, tmp_path: Path, option: str
) -> None:
    (tmp_path / "tubelet.toml").write_text("[models]\ndefault = 'nobody'\n")
    ports = {"--port": "0", "--metrics-port": "0", option: str(served.server.port)}
    done = tubelet("serve", "--config", str(tmp_path / "tubelet.toml"), *itertools.chain(*ports.items()))
    assert done.returncode == 1
    where = with_port(resolve("::")[0], served.server.port)  # without IPv6, that of IPv4
    assert f"cannot listen on {where}: Address already in use; {option} chooses" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_answers_and_drains_on_sigterm(video: Path) -> None:
    with serving() as (_, target):
        done = tubelet("classify", str(video), "--server", target, "--json")
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
                _catches_sigterm(process.pid)
                if moment == "importing"
                else "decode sandbox" in log.read_text()
            ):
                assert process.poll() is None
            process.send_signal(signal.SIGHUP)  # has nothing to reread yet
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert "ready after" not in log.read_text()
    assert "Traceback" not in log.read_text()


def test_second_ctrl_c_ends_serve_at_once(video: Path) -> None:
    """In a terminal, with a call in flight and an hour to drain."""
    terminal, ours = pty.openpty()
    with (
        os.fdopen(terminal, "rb", buffering=0) as screen,
        subprocess.Popen(
            [TUBELET, "serve", "--host", "localhost", "--port", "0", "--metrics-port", "0"],
            stdin=ours,
            stdout=ours,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=os.environ | {"TUBELET_SERVER__DRAIN_S": "3600"},
        ) as process,
    ):
        os.close(ours)
        try:
            ready = screen.readline().decode()
            port, metrics_port = map(int, re.findall(r"port (\d+)", ready))
            assert "127.0.0.1" in ready
            children = psutil.Process(process.pid).children(recursive=True)
            assert children
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                upload = Upload(VideoClassifierStub(channel))
                upload.send(video.read_bytes()[:1000])
                while "tubelet_videos_in_flight 1.0" not in _page(metrics_port, "metrics")[1]:
                    assert not upload.call.done()
                assert _page(metrics_port, "readyz") == (200, "ready\n")
                os.write(terminal, b"\x03")
                while _page(metrics_port, "readyz") != (503, "draining\n"):
                    assert process.poll() is None
                assert _page(metrics_port, "healthz") == (200, "alive\n")
                assert not upload.call.done()
                os.write(terminal, b"\x03")
                assert process.wait(timeout=60) == 128 + signal.SIGINT
                assert upload.call.code() is grpc.StatusCode.UNAVAILABLE
                upload.send(None)
        finally:
            process.kill()
    for child in children:
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            sleep(0.01)


def _page(metrics_port: int, name: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/{name}", timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _catches_sigterm(pid: int) -> bool:
    """Return whether the process handles the signal itself, see proc_pid_status(5)."""
    mask = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return mask is not None and bool(int(mask[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_every_line_is_json_from_the_start_to_the_end(video: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        log.open("w") as file,
        serving(log=file, TUBELET_LOG__FORMAT="json", GRPC_TRACE="http", GRPC_VERBOSITY="INFO") as (
            process,
            target,
        ),
        Client(target) as client,
    ):
        client.classify(str(video))
        process.send_signal(signal.SIGHUP)
        while "model reload complete" not in log.read_text():
            assert process.poll() is None
            sleep(0.05)
    lines = list(map(json.loads, log.read_text().splitlines()))
    assert any(line["logger"] == "stderr" and ".cc:" in line["message"] for line in lines)
    ours = [line for line in lines if line["logger"] != "stderr"]
    begins = [line["message"].split()[0] for line in ours if "engine" not in line["logger"]]
    expected = ["tubelet", "decode", "ready", "call", "reloading", "model", "draining", "ended:"]
    assert [word for word in begins if word in expected] == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_serve_may_open_as_many_files_as_it_takes_connections(host: str) -> None:
    """At each address. It raises the soft limit, which is 1024 on some systems, but never the hard one."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    try:
        with serving("--host", host, TUBELET_SERVER__MAX_CONNECTIONS="700") as (process, _):
            soft, hard = psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert soft == min(700 * len(resolve(host)) + 1024, limits[1])
    assert hard == limits[1]


def test_an_error_at_the_start_is_a_line_of_the_log() -> None:
    environment = {"TUBELET_LOG__FORMAT": "json", "TUBELET_MODELS__DEFAULT": "nobody"}
    done = tubelet("serve", "--port", "0", "--metrics-port", "0", **environment)
    assert done.returncode == 1
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["level"] == "ERROR"
    assert "no model 'nobody' in the store" in last["message"]
