"""Measures how fast the default model serves real clips, and which stages take the time.

    python -m tests.bench.serve ../shared/videos/real

Starts ``tubelet serve`` as a process, and sends every clip below the folder over a real channel, at
concurrency 1 and 8 in turn. Prints videos/s, the times of the stages, the share of the wall time for which
decoders and engine were busy, and the memory of the server with its workers.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tubelet.service.client import Client
from tubelet.service.types.result import Classification
from tubelet.service.types.video import NS_PER_S

STAGES = ("upload", "probe", "decode", "queue", "encode", "classify", "total")
MIB = 1 << 20
READY_S = 120  # as the startup probe of the deployment grants


class NotReady(RuntimeError):
    """The server did not start."""


@dataclass(frozen=True, slots=True)
class Server:
    process: psutil.Popen
    port: int
    metrics_port: int
    ready_s: float

    def memory_bytes(self) -> int:
        """Return the proportional set size of server and workers: shared memory counts once."""
        total = 0
        for process in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # a worker that has just made room for another
                total += process.memory_full_info().pss
        return total

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over all clips: its wall seconds, and the answers."""

    wall_s: float
    latencies_s: list[float]
    answers: list[Classification]
    decoders_busy_s: float
    engine_busy_s: float
    peak_bytes: int


@contextmanager
def started(*prefix: str, **settings: str) -> Iterator[Server]:
    """``tubelet serve`` with settings from the environment; no embeddings are kept: rounds cost the same.

    ``prefix`` is a command that runs the one given to it as arguments.

    Raises:
        NotReady: it ended, or did not listen within two minutes.
    """
    start = time.monotonic()
    environment = {"TUBELET_ENGINE__CACHE_BYTES": "0"} | settings
    process = psutil.Popen(
        [*prefix, Path(sys.executable).with_name("tubelet"), "serve", "--port", "0", "--metrics-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | environment,
    )
    try:
        deadline = threading.Timer(READY_S, process.kill)
        deadline.start()
        ports = re.findall(r"port (\d+)", process.stdout.readline())
        deadline.cancel()
        if not ports:
            raise NotReady(f"tubelet serve was not ready within {READY_S} s")
        port, metrics_port = ports
        ready_s = time.monotonic() - start
        yield Server(process, int(port), int(metrics_port), ready_s)
    finally:
        process.terminate()
        process.wait(timeout=60)


def run(server: Server, clips: list[Path], concurrency: int) -> Round:
    done, peak = threading.Event(), 0

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, server.memory_bytes())

    def classify(clip: Path) -> tuple[float, Classification]:
        start = time.monotonic()
        answer = client.classify(clip)
        return time.monotonic() - start, answer

    watcher = threading.Thread(target=watch)
    watcher.start()
    busy = ("tubelet_decoder_busy_seconds_total", "tubelet_engine_busy_seconds_total")
    before = [server.metric(name) for name in busy]
    with Client(f"127.0.0.1:{server.port}") as client, ThreadPoolExecutor(concurrency) as threads:
        start = time.monotonic()
        timed = list(threads.map(classify, clips))
        wall_s = time.monotonic() - start
    after = [server.metric(name) for name in busy]
    done.set()
    watcher.join()
    decoders, engine = (late - early for early, late in zip(before, after, strict=True))
    return Round(wall_s, [each[0] for each in timed], [each[1] for each in timed], decoders, engine, peak)


def report(concurrency: int, rounds: list[Round]) -> None:
    best = sorted(rounds, key=lambda each: each.wall_s)[len(rounds) // 2]
    latencies = sorted(latency for each in rounds for latency in each.latencies_s)
    video_s = sum(answer.metadata.duration_ns for answer in best.answers) / NS_PER_S
    print(
        f"concurrency {concurrency}: {len(best.answers) / best.wall_s:.2f} videos/s, "
        f"{video_s / best.wall_s:.0f} video seconds/s, "
        f"p50 {statistics.median(latencies) * 1000:.0f} ms, "
        f"p95 {latencies[int(0.95 * len(latencies))] * 1000:.0f} ms"
    )
    medians = {
        stage: statistics.median(
            answer.stage_seconds[stage] * 1000 for each in rounds for answer in each.answers
        )
        for stage in STAGES
    }
    print("  median ms a video: " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in medians.items()))
    print(
        f"  busy: decoders {100 * best.decoders_busy_s / best.wall_s:.0f} % of the wall time in sum, "
        f"engine {100 * best.engine_busy_s / best.wall_s:.0f} %; "
        f"peak memory {max(each.peak_bytes for each in rounds) / MIB:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    clips = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    with started() as server:
        print(f"{len(clips)} clips; ready after {server.ready_s:.1f} s")
        print(f"idle memory {server.memory_bytes() / MIB:.0f} MiB with decode workers")
        rounds: dict[int, list[Round]] = {1: [], 8: []}
        for _ in range(arguments.rounds):
            for concurrency, found in rounds.items():
                found.append(run(server, clips, concurrency))
        for concurrency, found in rounds.items():
            report(concurrency, found)
        one, eight = (statistics.median(each.wall_s for each in found) for found in rounds.values())
        print(f"8 at once against 1 at once: {one / eight:.2f} times the videos/s")


if __name__ == "__main__":
    main()
