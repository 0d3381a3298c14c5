"""Measures what a video costs a server, by model, clip length and picture size: processor seconds and memory.

    python -m tests.bench.sizing VIDEO [--only MODEL]

Cuts clips of 2, 10 and 60 s in three sizes out of VIDEO, over and over where it is shorter (H.264, x264's
``veryfast``, 30 frames a second). Each model gets a server of its own with the default configuration, but
without an embedding cache, which is asked for one clip at a time, in the model's own windows. Costs are read
from /proc: processor seconds of the server and of its decode workers, and the largest proportional set size
of all of them. Means over 20 requests, or fewer that take one second of processor time together.

Models that are not embedded get windows of 2 s side by side. The three small ones are those of the study of
data. All but efficientnet-lite0 have random weights, which cost as much as trained ones.
"""

import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import torchvision
import transformers
import typer

from tests.bench.costs import Others
from tests.bench.targets import Target, tubelet
from tubelet.models.checkpoints.importer import read_source, store_model
from tubelet.models.families.registry import build_model, family_of
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.spec import ModelSpec, Sampling
from tubelet.models.training.study.design import FRAMES, PREPROCESSING
from tubelet.models.training.study.design import MODELS as STUDIED
from tubelet.service.client import Client

LENGTHS_S = (2, 10, 60)
SIZES = ((320, 240), (1280, 720), (1920, 1080))
WINDOW_S = 2.0
REQUESTS, ENOUGH_S = 20, 1.0
LABELS = tuple(f"label {number}" for number in range(400))
MB = 1_000_000
hf: Any = transformers


def of_study(store: Path, name: str) -> None:
    """Store a model of the study of data, 16 frames of 32 x 32."""
    studied = STUDIED[name]
    frames = studied.frames_per_unit
    spec = ModelSpec(
        name=name,
        version="1",
        family=family_of(studied.dims),
        description="random weights, to be timed",
        licence="MIT",
        labels=LABELS,
        sampling=Sampling(frames, FRAMES // frames, WINDOW_S, WINDOW_S, 1.0, 4.0),
        preprocessing=PREPROCESSING,
    )
    model = build_model(studied.dims, PREPROCESSING, len(LABELS))
    write_folder(store / name / "1", spec, studied.dims, model.eval(), "Random weights.\n")


def image_cnn(store: Path, name: str) -> None:
    """Store efficientnet-lite0 with its weights, from its package."""
    store_model(read_source(name, WINDOW_S), store, name, "1")


def clip_cnn(store: Path, name: str) -> None:
    """Store torchvision's R3D-18."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pt"
        torch.save(torchvision.models.get_model("r3d_18").state_dict(), file)
        foreign = read_source("torchvision:r3d_18", WINDOW_S, labels=LABELS, weights=file)
        store_model(foreign, store, name, "1")


def clip_transformer(store: Path, name: str) -> None:
    """Store a VideoMAE of ViT-S's sizes, 16 frames of 224 x 224."""
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
    with tempfile.TemporaryDirectory() as folder:
        config = hf.VideoMAEConfig(**sizes, num_labels=len(LABELS))
        hf.VideoMAEForVideoClassification(config).save_pretrained(folder)
        hf.VideoMAEImageProcessor().save_pretrained(folder)
        store_model(read_source(folder, WINDOW_S, labels=LABELS), store, name, "1")


MODELS: dict[str, Callable[[Path, str], None] | None] = {
    "camera-motion": None,
    "factorised": of_study,
    "channel_stack": of_study,
    "r2plus1d": of_study,
    "efficientnet-lite0": image_cnn,
    "r3d_18": clip_cnn,
    "videomae-s": clip_transformer,
}
"""Name -> what writes the model into a store; None: it is embedded."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a request: processor seconds, those of decoding, and the largest memory meanwhile."""

    total_s: float
    decoding_s: float
    peak_bytes: int


def cut(video: Path, folder: Path) -> dict[tuple[int, tuple[int, int]], Path]:
    """Cut the clips that ``folder`` lacks out of ``video``; return all by length and size."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = {}
    for seconds, (width, height) in product(LENGTHS_S, SIZES):
        clip = clips[seconds, (width, height)] = folder / f"{width}x{height}-{seconds}.mp4"
        if clip.exists():
            continue
        fit = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height},fps=30"
        read = [
            "ffmpeg",
            "-v",
            "error",
            "-stream_loop",
            "-1",
            "-i",
            str(video),
            "-t",
            str(seconds),
            "-vf",
            fit,
        ]
        write = "-an -c:v libx264 -preset veryfast -pix_fmt yuv420p"
        subprocess.run([*read, *write.split(), str(clip)], check=True)
    return clips


@contextmanager
def serving(store: Path, model: str) -> Iterator[tuple[Target, Client]]:
    """Start a server that has ``model`` loaded, and a client of it."""
    load = f'["{model}"]'
    with (
        tubelet(store, TUBELET_MODELS__DEFAULT=model, TUBELET_MODELS__LOAD=load) as target,
        Client(target.address, retries=False) as client,
    ):
        yield target, client


def measure(target: Target, client: Client, clip: Path) -> Cost:
    """Ask for a clip a few times; return the mean cost."""
    done, peak = threading.Event(), 0

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            peak = max(peak, target.memory_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    before = target.cpu_s()
    requests = 0
    while True:
        client.classify(clip)
        requests += 1
        spent = {part: used - before[part] for part, used in target.cpu_s().items()}
        if requests == REQUESTS or sum(spent.values()) > ENOUGH_S:
            break
    peak = max(peak, target.memory_bytes())
    done.set()
    watcher.join()
    return Cost(sum(spent.values()) / requests, spent["below"] / requests, peak)


def row(model: str, seconds: int, costs: list[Cost], idle_bytes: int) -> list[str]:
    """Return a row of the table, with a cell for each size in each group of columns."""
    return [
        model,
        f"{seconds} s",
        *(f"{cost.total_s:.3g} ({cost.decoding_s:.2g})" for cost in costs),
        *(f"{1 / cost.total_s:.2g}" for cost in costs),
        *(f"{cost.peak_bytes / MB:.0f}" for cost in costs),
        f"{idle_bytes / MB:.0f}",
    ]


def main(
    video: Annotated[Path, typer.Argument(help="a recording", exists=True, dir_okay=False)],
    folder: Annotated[Path, typer.Option("--clips", help="where cut clips are kept")] = Path("runs/sizing"),
    only: Annotated[list[str] | None, typer.Option(help="a model of the table")] = None,
) -> None:
    """Print the table in Markdown, row by row, and what other programs took of the machine meanwhile."""
    others = Others()
    sizes = [f"{width}x{height}" for width, height in SIZES]
    groups = ("CPU-s (decoding), {}", "videos/s a core, {}", "peak MB, {}")
    headings = ["model", "clip", *(group.format(size) for group in groups for size in sizes), "idle MB"]
    print_row(headings)
    print_row(["---"] * 2 + ["---:"] * (len(headings) - 2))
    clips = cut(video, folder)
    with tempfile.TemporaryDirectory() as name:
        store = Path(name)
        for model, write in MODELS.items():
            if only and model not in only:
                continue
            if write:
                write(store, model)
            with serving(store, model) as (target, client):
                client.classify(clips[LENGTHS_S[0], SIZES[0]])
                idle_bytes = target.memory_bytes()
                for seconds in LENGTHS_S:
                    costs = [measure(target, client, clips[seconds, size]) for size in SIZES]
                    print_row(row(model, seconds, costs, idle_bytes))
    print(f"other programs took {100 * others.share():.0f} % of the machine")


def print_row(cells: list[str]) -> None:
    """Print a row of a table in Markdown, at once."""
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    typer.run(main)
