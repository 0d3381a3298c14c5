"""Measures what embeddings add to the processor time of a call.

    python -m tests.bench.embeddings [VIDEO] [--rounds 21] [--cold]

Each round classifies the video once in each way, one after another, through the whole pipeline in this
process. ``labels again`` is the control. The table has the median over rounds of the ratio to ``labels``,
with its 95 % interval. The units are in the cache, but with ``--cold``.
"""

import argparse
import asyncio
import statistics
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.costs import median_interval, timed
from tubelet.service.config.config import load_config
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.pipeline import Pipeline
from tubelet.service.server.app import SAMPLE_CLIP, open_stages
from tubelet.service.types.embeddings import EmbeddingLevel
from tubelet.service.types.request import Options
from tubelet.service.types.result import ignore_event

LABELS = "labels"
WAYS = {
    LABELS: Options(),
    "labels again": Options(),
    **{f"labels and {level.value}": Options(embeddings=level) for level in EmbeddingLevel},
    **{f"{level.value} alone": Options(embeddings=level, only_embeddings=True) for level in EmbeddingLevel},
}


async def cpu_s(pipeline: Pipeline, video: bytes, options: Options, *, cold: bool) -> float:
    """Return the processor seconds of one call."""

    async def chunks() -> AsyncIterator[bytes]:
        yield video

    if cold:
        pipeline.clear_cache()
    _, cost = await timed(pipeline.classify(chunks(), pipeline.request(options), ignore_event))
    return cost.cpu_s


async def run(video: bytes, rounds: int, *, cold: bool) -> None:
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    async with open_stages(load_config(None), Metrics()) as stages:
        for number in range(-2, rounds):  # the first two warm up
            for way, options in WAYS.items():
                spent_s = await cpu_s(stages.pipeline, video, options, cold=cold)
                if number >= 0:
                    found[way].append(spent_s)
    table = Table("answer", "processor time a call", "ratio", "95 % interval", box=None)
    for way, spent in found.items():
        middle, low, high = median_interval([a / b for a, b in zip(spent, found[LABELS], strict=True)])
        interval = f"{low:.3f} to {high:.3f}"
        table.add_row(way, f"{statistics.median(spent) * 1e3:.1f} ms", f"{middle:.3f}", interval)
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--cold", action="store_true")
    asked = parser.parse_args()
    content = asked.video.read_bytes() if asked.video else SAMPLE_CLIP.read_bytes()
    asyncio.run(run(content, asked.rounds, cold=asked.cold))
