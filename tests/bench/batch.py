"""Measures ``tubelet batch`` beside a server that 16 clients keep busy: same model, weights and clips.

    python -m tests.bench.batch ../shared/videos/real [--rounds 15] [--seconds 6] [--keep FILE.jsonl]

The model is that of ``tests.bench.load``, without an embedding cache. Both take the clips in one shuffled
order, 16 at a time. In each round batch has a turn, then the server, then batch once more as the control; in
every second round it is the other way round. Batch writes its rows to a folder and commits them; the time of
its start, in which it loads the model, does not count, nor does the server's. With ``--keep``, the rounds are
added to those in a file.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

from rich.console import Console

from tests.bench.costs import keep_rounds, kept_rounds, median_interval
from tests.bench.load import drive, endlessly
from tests.bench.targets import MODEL, WHOLE, tubelet, write_model
from tubelet.service.batch.classifier import BatchClassifier, open_batch_classifier
from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import part_file
from tubelet.service.batch.destination.store import FolderStore
from tubelet.service.batch.plan import BatchPlan, make_plan
from tubelet.service.batch.progress import BatchProgress
from tubelet.service.batch.run import CommitPolicy, RowWriter, run_batch
from tubelet.service.batch.source.items import Item, file_item
from tubelet.service.config.config import load_config
from tubelet.service.metrics import Metrics

_JOBS = 16


async def run_for(
    seconds: float, clips: Sequence[Path], classifier: BatchClassifier, plan: BatchPlan
) -> float:
    """Run a batch that takes clips for ``seconds``; return the videos that it committed in a second."""
    names, end_s = count(), time.monotonic() + seconds

    def items() -> Iterator[Item]:
        """Yield clips until the time is over, each as a video of its own."""
        for clip in endlessly(clips, random.Random(0)):
            if time.monotonic() >= end_s:
                return
            yield file_item(str(clip), name=str(next(names)))

    with tempfile.TemporaryDirectory() as folder:
        store, part = FolderStore(Path(folder)), part_file("parquet")
        commits = ShardCommits(store, plan.folder, "shard", Owner.this_process(), part, ".parquet")
        commits.read()
        commits.take()
        progress = BatchProgress(0)
        start_s = time.monotonic()
        await run_batch(
            items(), classifier, RowWriter(commits, plan, progress, CommitPolicy()), progress, _JOBS
        )
        assert progress.failed == 0, progress.failures
        return progress.committed / (time.monotonic() - start_s)


async def measure(
    clips: Sequence[Path], store: Path, rounds: int, seconds: float
) -> AsyncIterator[dict[str, float]]:
    """Yield for each round the videos a second of batch, of the server, and of batch again."""
    config = load_config(models={"store": store, "default": MODEL}, engine={"cache_bytes": 0})
    plan = make_plan(WHOLE, config, embeddings=False)
    async with AsyncExitStack() as stack:
        classifier = await stack.enter_async_context(open_batch_classifier(config, plan, _JOBS, Metrics()))

        async def batch() -> float:
            """Measure batch once."""
            return await run_for(seconds, clips, classifier, plan)

        target = stack.enter_context(tubelet(store))

        async def server() -> float:
            """Measure the server once."""
            return (await asyncio.to_thread(drive, target, list(clips), seconds, clients=_JOBS)).rate

        for each in (batch, server):  # to warm up
            await each()
        turns = {"batch": batch, "server": server, "batch again": batch}
        for number in range(rounds):
            order = list(turns)[:: 1 if number % 2 == 0 else -1]
            yield {name: await turns[name]() for name in order}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    clips = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    console = Console(width=140)
    rounds = kept_rounds(arguments.keep)

    async def run(store: Path) -> None:
        """Measure, and print each round."""
        async for rates in measure(clips, store, arguments.rounds, arguments.seconds):
            rounds.append(rates)
            keep_rounds(arguments.keep, rounds)
            console.print(", ".join(f"{name} {rate:.2f}" for name, rate in rates.items()), "videos/s")

    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        asyncio.run(run(Path(folder)))
    for name in rounds[0]:
        console.print(f"{name}: median {statistics.median(each[name] for each in rounds):.2f} videos/s")
    for name in ("server", "batch again"):
        ratio, low, high = median_interval([each["batch"] / each[name] for each in rounds])
        console.print(f"batch / {name}: {ratio:.3f} ({low:.3f} to {high:.3f}), {len(rounds)} rounds")


if __name__ == "__main__":
    main()
