"""Measures how fast the levels of ``tubelet train`` are, and what training costs the decode workers.

    python -m tests.bench.train_speed clips.csv --base efficientnet-lite0 [--clips 24] [--rounds 15]

First, clips a second of the decode workers alone, of the feed of ``full``, which also augments and mixes
windows, and of the workers again (the control), on the same clips in each round. Then the seconds of an epoch
of each level over these clips, once embeddings are cached: a probe's is all of its fits and choices.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tests.bench.costs import median_interval
from tubelet.models.repository.model_folder import Entry
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.training.augmentation import Augmentation
from tubelet.models.training.drop_path import set_drop_path_
from tubelet.models.training.probe_fit import ProbeData, choose
from tubelet.models.training.probe_model import build_probe, probe_dims
from tubelet.models.training.start import TemporalStage, build_from, full_dims, temporal_dims, trains_in_bf16
from tubelet.models.training.trainer import Recipe, Trainer
from tubelet.service.cli.train.data.clips import Clip, read_clips
from tubelet.service.cli.train.levels.frames import FrameFeed, Reader
from tubelet.service.cli.train.levels.temporal import EmbeddingFeed
from tubelet.service.cli.train.prepare import window_sampling
from tubelet.service.cli.training.feed import start_decoders
from tubelet.service.config.config import load_config

CLASSES = 2
WINDOW_S = 2.0
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--base", default="efficientnet-lite0")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=("decode", "levels"))
    arguments = parser.parse_args()
    config = load_config()
    base = ModelStore(ZOO, config.models.store).find(arguments.base)
    clips = read_clips(arguments.data)[: arguments.clips]
    sampling = window_sampling(base, [WINDOW_S], None)
    with start_decoders(config.decode) as decoders:
        feed = FrameFeed(
            training=clips,
            labels=torch.arange(len(clips)) % CLASSES,
            weights=torch.ones(CLASSES),
            reader=Reader(sampling, base.spec.preprocessing, decoders),
            augmentation=Augmentation(),
            batch_size=BATCH,
        )
        if arguments.only != "levels":
            measure_decoding(feed, clips, arguments.rounds)
        if arguments.only != "decode":
            measure_levels(feed, base)


def measure_decoding(feed: FrameFeed, clips: tuple[Clip, ...], rounds: int) -> None:
    """Print clips a second of the workers alone and of the feed, in interleaved rounds."""
    seeds = {clip.name: number for number, clip in enumerate(clips)}

    def alone() -> None:
        assert sum(1 for _ in feed.reader.random_windows(clips, seeds, BATCH)) == len(clips)

    def fed() -> None:
        assert sum(len(batch.labels) for batch in feed.batches(0, 0)) == len(clips)

    ways = {"workers alone": alone, "feed of full": fed, "workers again": alone}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-1, rounds):  # the first warms up
        for way, read in ways.items():
            seconds = timed_s(read)
            if number >= 0:
                spent[way].append(seconds)
    table = Table("frames", "clips/s", "share of the workers' speed", "95 % interval", box=None)
    for way, seconds in spent.items():
        shares = [a / b for a, b in zip(spent["workers alone"], seconds, strict=True)]
        middle, low, high = median_interval(shares)
        speed = len(clips) / sorted(seconds)[len(seconds) // 2]
        table.add_row(way, f"{speed:.1f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}")
    Console(width=110).print(table)


def measure_levels(feed: FrameFeed, base: Entry) -> None:
    """Print the seconds of an epoch of each level over the clips of ``feed``."""
    state, pixels = base.load().state_dict(), base.spec.preprocessing
    windows = _embeddings(feed, base)
    dims = probe_dims(base.dims)
    models = {name: build_probe(each, base.dims, state, pixels, CLASSES) for name, each in dims.items()}
    with torch.no_grad():
        vectors = {name: torch.cat([model.pool(each) for each in windows]) for name, model in models.items()}
    numbers = torch.arange(len(windows))
    data = ProbeData(vectors, feed.labels, numbers, numbers % 5, CLASSES)
    seconds = {"probe": timed_s(lambda: choose(data))}

    units = feed.reader.sampling.units_per_window
    for level in ("temporal", "full"):
        chosen = (temporal_dims if level == "temporal" else full_dims)(base.dims, units)
        model = build_from(chosen, base.dims, state, pixels, CLASSES)
        if level == "temporal":
            model, batches = TemporalStage(model), EmbeddingFeed(windows, feed.labels, feed.weights, 16)
            dtype = torch.float32
        else:
            batches, dtype = feed, torch.bfloat16 if trains_in_bf16(model) else torch.float32
        trainer = Trainer(model, None, Recipe(steps=100, dtype=dtype))
        set_drop_path_(trainer.model, 0.1 if level == "full" else 0.0)
        epochs = 5 if level == "temporal" else 1

        def train(trainer: Trainer = trainer, batches: FrameFeed | EmbeddingFeed = batches) -> None:
            for batch in batches.batches(0, 0):
                trainer.train_step(batch)

        seconds[level] = min(timed_s(train) for _ in range(epochs))
    table = Table("level", "s an epoch", "times as fast as full", box=None)
    for level, spent in seconds.items():
        table.add_row(level, f"{spent:.2f}", f"{seconds['full'] / spent:.1f}")
    Console(width=110).print(table)


@torch.inference_mode()
def _embeddings(feed: FrameFeed, base: Entry) -> list[torch.Tensor]:
    """Return the embeddings (1, S, D) of a window of each clip."""
    model = base.load()
    samples = feed.reader.random_windows(feed.training, {clip.name: 0 for clip in feed.training}, BATCH)
    return [model.encode(torch.from_numpy(sample.units))[None].clone() for sample in samples]


def timed_s(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    started = time.monotonic()
    action()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
