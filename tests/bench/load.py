"""How tubelet and a plain gRPC server bear load: one model, the same weights and clips, one interleaved run.

    python -m tests.bench.load ../shared/videos/real [--concurrency 1,4,16] [--seconds 20] [--only NAME]

The model is a ViT-Ti/16 factorised encoder (12 + 4 layers, tubelets of 2 x 16 x 16, 32 frames over the
whole video) with random weights. Clients send clips in one shuffled order, each the next as soon as it has an
answer; after the closed loop an open one sends them at random times (Poisson), and then 64 clients all have a
deadline. The limit is how many videos the cores could decode, by tubelet's workers alone, and compute, in
full batches alone, if they did nothing else; both are measured first. No embedding is kept between requests.
"""

import argparse
import asyncio
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil
import torch
from rich.console import Console
from rich.table import Table

from models.contract import ModelSpec, Preprocessing, Sampling
from models.factorised import FactorisedDims
from models.families import build_model
from models.folder import write_folder
from models.variants import VARIANTS
from service.client import Client
from service.values import Options, Segment, WholeVideo
from tests.bench.peers.plain import METHOD
from tests.bench.stages import measure_stages

MODEL, SIZE, LABELS = "bench-ti", 224, 400
FRAMES, DEPTH = 32, 2
MIB = 1 << 20
CLIENTS_WITH_DEADLINE, DEADLINE_S = 64, 2.0
WHOLE = Options(windowing=WholeVideo())

T = TypeVar("T")

Ask = Callable[[Path, float], float | None]
"""A clip and a timeout in seconds -> seconds to the first segment, if there is one; raises what failed."""


@dataclass(slots=True)
class Load:
    """What clients saw, and what the server's processes took."""

    wall_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    failures: int = 0
    late: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0

    @property
    def rate(self) -> float:
        return len(self.latencies_s) / self.wall_s

    def quantile_ms(self, part: float) -> float:
        ranked = sorted(self.latencies_s)
        return 1000 * ranked[min(len(ranked) - 1, int(part * len(ranked)))] if ranked else float("nan")


class Target:
    """A server in processes of its own, and how it is asked."""

    def __init__(self, name: str, process: psutil.Popen, ask: Ask) -> None:
        self.name, self.process, self.ask = name, process, ask

    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    def cpu_s(self) -> dict[str, float]:
        """Of the server's process, and of those below it, those that have ended included."""
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
    variant = VARIANTS["Ti"]
    dims = FactorisedDims(
        (DEPTH, 16, 16),
        FRAMES // DEPTH,
        variant.embed_dim,
        variant.depth,
        4,
        variant.num_heads,
        variant.mlp_dim,
    )
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
def _running(command: list[str], **environment: str) -> Iterator[psutil.Popen]:
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
def tubelet(store: Path, **settings: str) -> Iterator[Target]:
    settings = {
        "TUBELET_MODELS__STORE": str(store),
        "TUBELET_MODELS__DEFAULT": MODEL,
        "TUBELET_MODELS__LOAD": f'["{MODEL}"]',
        "TUBELET_ENGINE__CACHE_BYTES": "0",
    } | settings
    command = [str(Path(sys.executable).with_name("tubelet")), "serve", "--port", "0", "--metrics-port", "0"]
    with _running(command, **settings) as process:
        port, _ = re.findall(r"port (\d+)", process.stdout.readline())
        with Client(f"127.0.0.1:{port}") as client:

            def ask(clip: Path, timeout_s: float) -> float | None:
                start, first = time.monotonic(), None
                for event in client.stream(clip, WHOLE, timeout_s=timeout_s):
                    if first is None and isinstance(event, Segment):
                        first = time.monotonic() - start
                return first

            yield Target("tubelet", process, ask)


@contextmanager
def plain(store: Path) -> Iterator[Target]:
    port = _free_port()
    command = [sys.executable, "-m", "tests.bench.peers.plain", str(store), MODEL, str(port)]
    with (
        _running(command) as process,
        grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", -1)]) as channel,
    ):
        process.stdout.readline()
        call: Any = channel.unary_unary(METHOD)

        def ask(clip: Path, timeout_s: float) -> None:
            call(clip.read_bytes(), timeout=timeout_s)

        yield Target("plain grpc.aio", process, ask)


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def drive(
    target: Target,
    clips: list[Path],
    seconds: float,
    *,
    clients: int,
    rate: float | None = None,
    deadline_s: float = 600.0,
) -> Load:
    """Ask for so long: at random times with a ``rate`` (videos a second), else each client on and on."""
    chance, lock, load, stop = random.Random(0), threading.Lock(), Load(), threading.Event()
    order = endlessly(clips, chance)

    def one() -> None:
        with lock:
            clip = next(order)
        start = time.monotonic()
        try:
            first_s = target.ask(clip, deadline_s)
        except Exception as error:
            with lock:
                load.failures += 1
            # Whoever is told to come back does: well-behaved clients do not knock all the time.
            time.sleep(getattr(error, "retry_after_s", None) or 0.1)
            return
        took_s = time.monotonic() - start
        with lock:
            if took_s > deadline_s:
                load.late += 1
                return
            load.latencies_s.append(took_s)
            if first_s is not None:
                load.first_s.append(first_s)

    def client() -> None:
        while time.monotonic() < end_s:
            one()

    def watch() -> None:
        while not stop.wait(0.2):
            load.peak_bytes = max(load.peak_bytes, target.memory_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    before, start_s = target.cpu_s(), time.monotonic()
    end_s = start_s + seconds
    with ThreadPoolExecutor(clients if rate is None else 256) as threads:
        if rate is None:
            for _ in range(clients):
                threads.submit(client)
        else:
            due_s = start_s
            while (due_s := due_s + chance.expovariate(rate)) < end_s:
                time.sleep(max(0.0, due_s - time.monotonic()))
                threads.submit(one)
    load.wall_s = time.monotonic() - start_s
    after = target.cpu_s()
    stop.set()
    watcher.join()
    load.cpu_s = {name: after[name] - before[name] for name in after}
    return load


def endlessly(clips: Sequence[T], chance: random.Random) -> Iterator[T]:
    """All of them in a random order, again and again."""
    while True:
        yield from chance.sample(clips, len(clips))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--concurrency", default="1,4,16")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", default="", help="a part of a server's name")
    arguments = parser.parse_args()
    console = Console(width=140)
    clips = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Path(folder)
        write_model(store)
        costs = asyncio.run(measure_stages(store, MODEL, clips, WHOLE))
        limit = cores / (costs.decode_s + costs.compute_s)
        console.print(
            f"{len(clips)} clips on {cores} cores: one costs {costs.decode_s:.3f} CPU-s to decode and "
            f"{costs.compute_s:.3f} to compute; the limit is {limit:.2f} videos/s"
        )
        targets = [
            stack.enter_context(start(store))
            for name, start in (("tubelet", tubelet), ("plain", plain))
            if arguments.only.lower() in name
        ]
        idle = {target.name: target.memory_bytes() for target in targets}
        for target in targets:
            drive(target, clips, 3, clients=2)  # out of the way what is done once only
        columns = ("", "videos/s", "of the limit", "p50 ms", "p95 ms", "p99 ms", "first ms", "failed", "late")
        shown = Table(*columns, "server CPU", "its children", "MiB above idle", box=None)
        notes = Console(stderr=True)

        def add(what: str, target: Target, load: Load) -> None:
            notes.print(
                f"{what}, {target.name}: {load.rate:.2f} videos/s, p99 {load.quantile_ms(0.99):.0f} ms"
            )
            first = statistics.median(load.first_s) * 1000 if load.first_s else float("nan")
            shown.add_row(
                f"{what}, {target.name}",
                f"{load.rate:.2f}",
                f"{load.rate / limit:.0%}",
                *(f"{load.quantile_ms(part):.0f}" for part in (0.5, 0.95, 0.99)),
                f"{first:.0f}",
                str(load.failures),
                str(load.late),
                *(f"{load.cpu_s[name] / load.wall_s / cores:.0%}" for name in ("server", "below")),
                f"{(load.peak_bytes - idle[target.name]) / MIB:.0f}",
            )

        for concurrency in map(int, arguments.concurrency.split(",")):
            for target in targets:
                add(
                    f"closed loop, {concurrency}",
                    target,
                    drive(target, clips, arguments.seconds, clients=concurrency),
                )
        for target in targets:
            add(
                "open loop, 60 %",
                target,
                drive(target, clips, arguments.seconds, clients=0, rate=0.6 * limit),
            )
        for target in targets:
            load = drive(
                target, clips, arguments.seconds, clients=CLIENTS_WITH_DEADLINE, deadline_s=DEADLINE_S
            )
            add(f"{CLIENTS_WITH_DEADLINE} clients, {DEADLINE_S:g} s", target, load)
        for target in targets:
            add("right after it, 1", target, drive(target, clips, 5, clients=1))
        console.print(shown)


if __name__ == "__main__":
    main()
