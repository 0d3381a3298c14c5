"""Measures how long ``tubelet batch`` takes for one long video among short ones, beside the ideal.

    python -m tests.bench.makespan FOLDER [--minutes 120] [--videos 100] [--rounds 3] [--places first,last]

The long video is one of 640x360 with 30 frames a second, which repeats fifty seconds of real shots. The short
ones are the clips of the folder, in turns. The long one is the first or the last of them, and is decoded by
all decode workers once none else waits, as ``batch`` does, or by one. There is no embedding cache. The ideal
is the processor time of everything, in the run whose long video has one worker, divided by the cores. Loading
the model does not count.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.bench.costs import Cost, median_interval, timed
from tests.bench.footage import SHOT_S, Clip, rendered
from tubelet.service.batch.classifier import open_batch_classifier
from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import part_file
from tubelet.service.batch.destination.store import FolderStore
from tubelet.service.batch.plan import make_plan
from tubelet.service.batch.progress import BatchProgress
from tubelet.service.batch.run import CommitPolicy, RowWriter, run_batch
from tubelet.service.batch.source.items import Item, file_item
from tubelet.service.config.config import load_config
from tubelet.service.config.cores import usable_cores
from tubelet.service.metrics import Metrics
from tubelet.service.types.request import Options

_JOBS = 16
_SHOTS = 10
_WORKERS = {"all workers": None, "one worker": 1}  # of the long video


async def measure(items: Sequence[Item], workers_per_video: int | None) -> Cost:
    """Classify and commit ``items``; return what that cost, without the start."""
    config = load_config(decode={"workers_per_video": workers_per_video}, engine={"cache_bytes": 0})
    plan = make_plan(Options(), config, embeddings=False)
    with tempfile.TemporaryDirectory() as folder:
        store, part = FolderStore(Path(folder)), part_file("parquet")
        commits = ShardCommits(store, plan.folder, "shard", Owner.this_process(), part, ".parquet")
        commits.read()
        commits.take()
        progress = BatchProgress(len(items))
        writer = RowWriter(commits, plan, progress, CommitPolicy())
        async with open_batch_classifier(config, plan, _JOBS, Metrics()) as classifier:
            _, cost = await timed(run_batch(items, classifier, writer, progress, _JOBS))
    assert progress.failed == 0, progress.failures
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=int, default=120)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--places", default="first,last")
    arguments = parser.parse_args()
    repeats = arguments.minutes * 60 // (SHOT_S * _SHOTS)
    clip = Clip(f"{arguments.minutes} min 360p", 640, 360, 800, 250, _SHOTS, repeats)
    long = file_item(str(rendered(clip)), name="long")
    clips = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    short = [file_item(str(clips[n % len(clips)]), name=f"{n}") for n in range(arguments.videos)]
    orders = {"first": [long, *short], "last": [*short, long]}
    console = Console(width=140)
    ratios: dict[tuple[str, str], list[float]] = {}
    for number in range(arguments.rounds):
        for place in arguments.places.split(","):
            items = orders[place]
            names = list(_WORKERS)[:: 1 if number % 2 == 0 else -1]
            costs = {name: asyncio.run(measure(items, _WORKERS[name])) for name in names}
            ideal_s = costs["one worker"].cpu_s / usable_cores()
            for name, cost in costs.items():
                ratios.setdefault((place, name), []).append(cost.wall_s / ideal_s)
                console.print(
                    f"long video {place}, {name}: {cost.wall_s:.1f} s, {cost.cpu_s:.1f} s of processors, "
                    f"{cost.wall_s / ideal_s:.3f} of the ideal"
                )
    for (place, name), found in ratios.items():
        low, high = median_interval(found)[1:]
        console.print(
            f"long video {place}, {name}: {statistics.median(found):.3f} of the ideal "
            f"({low:.3f} to {high:.3f}), {len(found)} rounds"
        )


if __name__ == "__main__":
    main()
