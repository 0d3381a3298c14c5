"""Measures the cost of overlapping windows and of cached embeddings.

    python -m tests.bench.dense [--rounds 3]

The video has 40 s, a window 32 frames over 4 s. There are ten windows side by side, or dense ones, an eighth
of a window (4 frames) apart. tubelet encodes each unit once, however many windows share it. A peer that gets
windows computes each one whole (here: frames decoded once, the same weights and precision, eager, batches of
four windows). Then the same video is classified again with the embedding cache, so that only decoding is
left. The model is that of ``tests.bench.load``. All rows come from one interleaved run, through the whole
pipeline in this process.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tests.bench.costs import Cost, median, ratio, timed
from tests.bench.footage import FPS, Clip, rendered
from tests.bench.peers.work import Recogniser
from tests.bench.targets import FRAMES, MODEL, write_model
from tubelet.service.config.config import Config, EngineConfig, ModelsConfig
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.pipeline import Pipeline
from tubelet.service.server.app import open_stages
from tubelet.service.types.request import Options, Sliding
from tubelet.service.types.result import Event, Segment
from tubelet.service.types.video import NS_PER_S

CLIP = Clip("40 s 360p", 640, 360, 800, 250, shots=8, repeats=1)
WINDOW_S, STRIDE_S = 4, 0.5
_AT_ONCE = 4
_CORES = len(os.sched_getaffinity(0))

PLAIN, DENSE, PEER = "side by side", "dense", "dense, each window whole"
COLD, WARM = "dense, cache on, first time", "dense, cache on, again"


async def _classify(pipeline: Pipeline, path: Path, stride_s: float) -> int:
    """Classify the file with this stride, and return the number of segments."""
    segments = 0

    async def chunks() -> AsyncIterator[bytes]:
        yield path.read_bytes()

    async def emit(event: Event) -> None:
        nonlocal segments
        segments += isinstance(event, Segment)

    sliding = Sliding(WINDOW_S * NS_PER_S, round(stride_s * NS_PER_S))
    await pipeline.classify(chunks(), pipeline.request(Options(windowing=sliding)), emit)
    return segments


async def _whole(peer: Recogniser, path: Path) -> int:
    def work() -> int:
        torch.set_num_threads(_CORES)  # of this thread: the engine's own compute on one each
        every = round(WINDOW_S * FPS / FRAMES)
        windows = peer.decode_windows(path.read_bytes(), every, round(FRAMES * STRIDE_S / WINDOW_S))
        for start in range(0, len(windows), _AT_ONCE):
            peer.logits(windows[start : start + _AT_ONCE])
        return len(windows)

    return await asyncio.to_thread(work)


async def measure(store: Path, rounds: int) -> dict[str, tuple[int, list[Cost]]]:
    path, peer = rendered(CLIP), Recogniser(store, MODEL)
    models = ModelsConfig(store=store, default=MODEL, load=(MODEL,))
    found: dict[str, tuple[int, list[Cost]]] = {}
    async with AsyncExitStack() as stack:
        new, kept = [
            (await stack.enter_async_context(open_stages(config, Metrics()))).pipeline
            for config in (
                Config(models=models, engine=EngineConfig(cache_bytes=0)),
                Config(models=models, engine=EngineConfig()),
            )
        ]
        works: dict[str, Callable[[], Awaitable[int]]] = {
            PLAIN: lambda: _classify(new, path, WINDOW_S),
            DENSE: lambda: _classify(new, path, STRIDE_S),
            COLD: lambda: _classify(kept, path, STRIDE_S),
            WARM: lambda: _classify(kept, path, STRIDE_S),
            PEER: lambda: _whole(peer, path),
        }
        await works[PLAIN]()
        for _ in range(rounds):
            kept.clear_cache()
            for name, work in works.items():
                number, cost = await timed(work())
                found.setdefault(name, (number, []))[1].append(cost)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        found = asyncio.run(measure(Path(folder), arguments.rounds))
    shown = Table("", "answers", "s", "CPU s", "answers/s", "x side by side", "(CPU)", "x dense", box=None)
    for name, (number, costs) in found.items():
        cost, to_plain, to_dense = (
            median(costs),
            ratio(costs, found[PLAIN][1]),
            ratio(costs, found[DENSE][1]),
        )
        shown.add_row(
            name,
            str(number),
            f"{cost.wall_s:.2f}",
            f"{cost.cpu_s:.2f}",
            f"{number / cost.wall_s:.1f}",
            f"{to_plain.wall_s:.2f}",
            f"{to_plain.cpu_s:.2f}",
            f"{to_dense.wall_s:.2f}",
        )
    console = Console(width=128)
    console.print(f"median of {arguments.rounds} rounds, {_CORES} cores")
    console.print(shown)


if __name__ == "__main__":
    main()
