"""A server of a commit: checked out, started beside others, reached over a real channel."""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from tubelet.v1 import video_classifier_pb2 as rpc
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

ROOT = Path(__file__).resolve().parents[3]
READY_S = 120.0
_POLL_S = 0.2
LAUNCHER = """
import importlib, sys
try:
    main = importlib.import_module("tubelet.service.cli.command").main
except ImportError:  # before tubelet was the one import name
    main = importlib.import_module("service.cli").app
sys.argv[0] = "tubelet"
main()
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server of one commit."""

    process: subprocess.Popen[bytes]
    stub: VideoClassifierStub
    metrics_port: int
    store: Path
    checkout: Path

    def wait_for_videos(self, number: int) -> None:
        """Wait until this number of videos is in flight."""
        while self._videos_in_flight() != number:
            assert self.process.poll() is None
            time.sleep(_POLL_S)

    def _videos_in_flight(self) -> float:
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=60) as response:
            families = text_string_to_metric_families(response.read().decode())
        return next(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "tubelet_videos_in_flight"
        )


@contextmanager
def serving(commit: str, videos: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="golden-") as name:
        folder = Path(name)
        checkout, store = folder / "checkout", folder / "store"
        checkout.mkdir()
        store.mkdir()
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", checkout], input=archive, check=True)
        python = _python_of(checkout, folder / "venv")
        port, metrics_port = _free_port(), _free_port()
        configuration = folder / "tubelet.toml"
        configuration.write_text(
            f'server.port = {port}\nserver.host = "127.0.0.1"\nserver.metrics_port = {metrics_port}\n'
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
                yield Server(process, VideoClassifierStub(channel), metrics_port, store, checkout)
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
        time.sleep(_POLL_S)
    sys.exit(f"a server did not get ready:\n{log.read_text()}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def models_after_hup(server: Server, is_reached: Callable[[set[str]], bool]) -> list[str]:
    server.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 60
    while True:
        listed = server.stub.ListModels(rpc.ListModelsRequest(), timeout=30).models
        names = {model.name for model in listed}
        if is_reached(names) or time.monotonic() > until:
            return sorted(f"{model.name} {model.version}" for model in listed)
        time.sleep(_POLL_S)
