"""Measures how long classification takes while another video is explained: the 99th percentile.

    python -m tests.bench.explain_beside [--rounds 5] [--seconds 12] [--method relevance] [--samples FILE]

One server classifies clips of two seconds with camera-motion. They arrive at random times (Poisson), half as
many as it answers in a closed loop. Rounds take turns: nothing else, nothing else again (the control), and a
joint ViT-B with 1,568 tokens a unit and random weights that explains one video after another for one client.
A round of each kind has the same arrivals. Prints medians and 99th percentiles of all rounds together, and
their ratios to the first kind with 95 % intervals (bootstrap over rounds). ``--samples`` keeps the latencies
in a file, and counts those that it has already: a long run may be divided. No embeddings are cached.
"""

import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from tests.bench.serve import Server, started
from tests.support.sample_clip import panning_clip
from tubelet.models.families.joint import JointDims
from tubelet.models.families.registry import build_model
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.spec import ModelSpec, Preprocessing, Sampling
from tubelet.service.client import Client
from tubelet.service.server.app import SAMPLE_CLIP
from tubelet.service.types.explanation import ExplainMethod, ExplainOptions
from tubelet.service.types.request import Options
from tubelet.service.wire.explanation import explain_options_to_proto
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.video_classifier_pb2_grpc import VideoClassifierStub

MODEL, FRAMES, SIZE = "bench-vit-b", 16, 224
KINDS = ("nothing", "nothing again", "explained")
CLIENTS = 4  # of the closed loop
CLOSED_S = 8.0
SHARE = 0.5  # of what the closed loop answers
RESAMPLES = 2000
_NICE = 16  # the field of a thread's niceness in /proc, after its name

Samples = dict[str, list[list[float]]]
"""The latencies, seconds, of each round of each kind."""


def write_model(store: Path) -> None:
    """Write a ViT-B over clips (the sizes of VideoMAE-B, arXiv 2203.12602) with random weights."""
    torch.manual_seed(0)
    dims = JointDims(FRAMES, (2, 16, 16), 768, 12, 12, 3072, pool="mean")
    preprocessing = Preprocessing(SIZE, SIZE, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    labels = tuple(f"label {number}" for number in range(400))
    sampling = Sampling(FRAMES, 1, window_s=2, stride_s=2, min_window_s=1, max_window_s=4)
    spec = ModelSpec(
        MODEL, "1", "joint", "random weights, to be timed", "MIT", labels, sampling, preprocessing
    )
    model = build_model(dims, preprocessing, len(labels)).eval()
    write_folder(store / MODEL / "1", spec, dims, model, "Random weights.\n")


def closed_loop(client: Client, clip: bytes) -> float:
    """Classify without a pause for some seconds; return the clips that were answered a second."""
    end = time.monotonic() + CLOSED_S

    def run() -> int:
        answered = 0
        while time.monotonic() < end:
            client.classify(clip)
            answered += 1
        return answered

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(lambda _: run(), range(CLIENTS))) / CLOSED_S


def open_loop(client: Client, clip: bytes, rate: float, seconds: float, seed: int) -> list[float]:
    """Send clips at random times; return the seconds from when each was due to its answer."""
    arrivals, due, start = random.Random(seed), 0.0, time.monotonic()

    def run(at: float) -> float:
        client.classify(clip)
        return time.monotonic() - start - at

    with ThreadPoolExecutor(64) as pool:
        asked = []
        while (due := due + arrivals.expovariate(rate)) < seconds:
            time.sleep(max(0.0, start + due - time.monotonic()))
            asked.append(pool.submit(run, due))
        return [each.result() for each in asked]


@contextmanager
def explaining(stub: VideoClassifierStub, method: ExplainMethod) -> Iterator[list[int]]:
    """Have videos explained, one after another, until the context ends; yield the list of the maps' steps."""
    options = explain_options_to_proto(ExplainOptions(method), Options(model=MODEL))
    messages = (pb.ExplainRequest(options=options), pb.ExplainRequest(chunk=SAMPLE_CLIP.read_bytes()))
    is_over, maps, calls = threading.Event(), list[int](), list[grpc.Call]()

    def run() -> None:
        with suppress(grpc.RpcError):  # the last call is cancelled
            while not is_over.is_set():
                calls.append(call := stub.Explain(iter(messages)))
                maps.extend(len(event.map.start_s) for event in call if event.WhichOneof("event") == "map")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield maps
    finally:
        is_over.set()
        calls[-1].cancel()
        thread.join()


def explained_s(server: Server) -> float:
    """Return the processor time of the thread that explains, which alone has the lowest priority."""
    found = 0.0
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        if fields[_NICE] == "19":
            found += int((task / "schedstat").read_text().split()[0]) / 1e9
    return found


def rounds(
    server: Server, count: int, seconds: float, method: ExplainMethod, samples: Samples
) -> Iterator[None]:
    """Run rounds of all kinds in turn, add their latencies to ``samples``, and yield after each round."""
    clip, console = panning_clip(2.0), Console()
    address = f"127.0.0.1:{server.port}"
    with Client(address) as client, grpc.insecure_channel(address) as channel:
        stub = VideoClassifierStub(channel)
        with explaining(stub, method) as maps:  # loads the copy
            while not maps:
                time.sleep(0.1)
        rate = closed_loop(client, clip) * SHARE
        console.print(f"{rate:.1f} clips a second are half of what the server answers")
        for _ in range(count):
            for kind in KINDS:
                seed, before = len(samples[kind]), explained_s(server)
                with explaining(stub, method) if kind == "explained" else nullcontext():
                    latencies = open_loop(client, clip, rate, seconds, seed)
                samples[kind].append(latencies)
                p99_ms, spent_s = np.quantile(latencies, 0.99) * 1e3, explained_s(server) - before
                console.print(f"{kind}: p99 {p99_ms:.0f} ms, {spent_s:.1f} s of processor time to explain")
                time.sleep(1)
            yield


def interval(samples: Samples, kind: str, share: float) -> tuple[float, float, float]:
    """Return the ratio of a quantile to that of the first kind, and its 95 % interval over rounds."""
    pairs = list(zip(samples[kind], samples[KINDS[0]], strict=True))
    draw = random.Random(0)

    def ratio(chosen: list[tuple[list[float], list[float]]]) -> float:
        one, other = (np.concatenate([pair[place] for pair in chosen]) for place in (0, 1))
        return float(np.quantile(one, share) / np.quantile(other, share))

    found = sorted(ratio(draw.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return ratio(pairs), found[round(0.025 * RESAMPLES)], found[round(0.975 * RESAMPLES) - 1]


def main(
    count: Annotated[int, typer.Option("--rounds")] = 5,
    seconds: Annotated[float, typer.Option()] = 12.0,
    method: Annotated[str, typer.Option()] = "relevance",
    kept: Annotated[Path | None, typer.Option("--samples")] = None,
) -> None:
    """Run the rounds, and print the table."""
    samples: Samples = {kind: [] for kind in KINDS}
    if kept is not None and kept.exists():
        samples = json.loads(kept.read_text())
    asked: dict[str, ExplainMethod] = {"relevance": "relevance", "rollout": "rollout"}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        models = {"STORE": folder, "DEFAULT": "camera-motion", "LOAD": f'["{MODEL}"]'}
        with started(**{f"TUBELET_MODELS__{key}": value for key, value in models.items()}) as server:
            for _ in rounds(server, count, seconds, asked[method], samples):
                if kept is not None:
                    kept.write_text(json.dumps(samples))
    table = Table(
        "beside", "rounds", "clips", "median ms", "p99 ms", "times median (95 %)", "times p99 (95 %)"
    )
    for kind in KINDS:
        every = np.concatenate(samples[kind])
        ratios = [interval(samples, kind, share) for share in (0.5, 0.99)]
        table.add_row(
            kind,
            str(len(samples[kind])),
            str(len(every)),
            f"{statistics.median(every) * 1e3:.0f}",
            f"{np.quantile(every, 0.99) * 1e3:.0f}",
            *(f"{middle:.2f} [{low:.2f}, {high:.2f}]" for middle, low, high in ratios),
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
