"""The servers compared under load: each in processes of its own, all with the weights of one model."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import grpc
import psutil
import torch

from tests.bench.peers.plain import METHOD
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.registry import build_model
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.spec import ModelSpec, Preprocessing, Sampling
from tubelet.service.client import Client
from tubelet.service.types.request import Options, WholeVideo
from tubelet.service.types.result import Segment

MODEL, SIZE, LABELS = "bench-ti", 224, 400
FRAMES, DEPTH = 32, 2
WHOLE = Options(windowing=WholeVideo())

Ask = Callable[[Path, float], float | None]
"""A clip and a timeout in seconds -> seconds to the first segment, if there is one; raises what failed."""


class Target:
    """A server in processes of its own, and the function that sends it a clip."""

    def __init__(self, name: str, process: psutil.Popen, address: str, ask: Ask) -> None:
        self.name, self.process, self.address, self.ask = name, process, address, ask

    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    def cpu_s(self) -> dict[str, float]:
        """Return the processor seconds of the server's process and its children, including ended ones."""
        used = {"server": 0.0, "below": 0.0}
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                own = "server" if process.pid == self.process.pid else "below"
                used[own] += times.user + times.system
                used["below"] += times.children_user + times.children_system
        return used

    def memory_bytes(self) -> int:
        total = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total


def write_model(store: Path) -> None:
    torch.manual_seed(0)
    # The sizes of ViT-Ti (arXiv 2012.12877, table 1), then four temporal blocks.
    dims = FactorisedDims((DEPTH, 16, 16), FRAMES // DEPTH, 192, 12, 4, 3, 768)
    preprocessing = Preprocessing(SIZE, SIZE, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    spec = ModelSpec(
        name=MODEL,
        version="1",
        family="factorised",
        description="random weights, to be timed",
        licence="MIT",
        labels=tuple(f"label {number}" for number in range(LABELS)),
        sampling=Sampling(DEPTH, FRAMES // DEPTH, 4.0, 4.0, 0.1, 24 * 3600.0),
        preprocessing=preprocessing,
    )
    model = build_model(dims, preprocessing, LABELS)
    write_folder(store / MODEL / "1", spec, dims, model.eval(), "Random weights.\n")


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[psutil.Popen]:
    process = psutil.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | environment
    )
    try:
        yield process
    finally:
        for each in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        if process.is_running():
            process.kill()


@contextmanager
def tubelet(store: Path, command: Path | None = None, **settings: str) -> Iterator[Target]:
    """Start the server of ``command``, a ``tubelet`` of another checkout; None: of this one."""
    settings = {
        "TUBELET_MODELS__STORE": str(store),
        "TUBELET_MODELS__DEFAULT": MODEL,
        "TUBELET_MODELS__LOAD": f'["{MODEL}"]',
        "TUBELET_ENGINE__CACHE_BYTES": "0",
    } | settings
    executable = str(command or Path(sys.executable).with_name("tubelet"))
    with running([executable, "serve", "--port", "0", "--metrics-port", "0"], **settings) as process:
        port, _ = re.findall(r"port (\d+)", process.stdout.readline())
        address = f"127.0.0.1:{port}"
        with Client(address, retries=False) as client:

            def ask(clip: Path, timeout_s: float) -> float | None:
                start, first = time.monotonic(), None
                for event in client.stream(clip, WHOLE, timeout_s=timeout_s):
                    if first is None and isinstance(event, Segment):
                        first = time.monotonic() - start
                return first

            yield Target(str(command) if command else "tubelet", process, address, ask)


@contextmanager
def plain(store: Path) -> Iterator[Target]:
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "tests.bench.peers.plain", str(store), MODEL, address]
    with (
        running(command) as process,
        grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel,
    ):
        process.stdout.readline()
        call: Any = channel.unary_unary(METHOD)

        def ask(clip: Path, timeout_s: float) -> None:
            call(clip.read_bytes(), timeout=timeout_s)

        yield Target("plain grpc.aio", process, address, ask)


@contextmanager
def litserve(store: Path) -> Iterator[Target]:
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "tests.bench.peers.lit", str(store), MODEL, address]
    with running(command) as process:
        while not _is_healthy(f"http://{address}/health"):
            if process.poll() is not None:
                raise SystemExit("LitServe did not start; it comes with: pip install -e '.[bench]'")
            time.sleep(0.2)

        def ask(clip: Path, timeout_s: float) -> None:
            headers = {"Content-Type": "application/octet-stream"}
            request = Request(f"http://{address}/predict", clip.read_bytes(), headers)
            with urlopen(request, timeout=timeout_s) as answer:
                json.load(answer)

        yield Target("LitServe", process, address, ask)


SERVERS = (tubelet, plain, litserve)


def _is_healthy(address: str) -> bool:
    with suppress(OSError), urlopen(address, timeout=5):
        return True
    return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
