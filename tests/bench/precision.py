"""Measures the accuracy of an embedded model in each precision that this CPU multiplies natively.

    python -m tests.bench.precision --videos ../shared/videos [--model NAME] [--batches N]

The windows are the test set of ``python -m tubelet.service.cli.training evaluate``: simulated camera moves
over scenes that were not used for training. Seconds are the processor time of a thread. The precisions take
turns on each batch.
"""

import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tubelet.models.repository.repository import ModelStore
from tubelet.models.runtime.host_memory import keep_freed_memory
from tubelet.models.runtime.int8 import Int8Linear
from tubelet.models.runtime.onednn import PackedLinear, pack
from tubelet.models.runtime.precision import Native, choose_dtype, native_precisions
from tubelet.models.training.simulation.dataset import SimulatedMoves
from tubelet.models.video_model import VideoModel
from tubelet.service.cli.training.__main__ import TEST_BATCHES, TEST_SEED
from tubelet.service.cli.training.sources import load_sources
from tubelet.service.config.config import load_config

CPU = torch.device("cpu")


def load(name: str, precision: Native) -> VideoModel:
    """Load the model as the engine does on a CPU."""
    model = ModelStore().find(name).load().to(choose_dtype(precision, CPU))
    pack(model, Int8Linear if precision == "int8" else PackedLinear)
    return model


def logits_of(model: VideoModel, windows: torch.Tensor) -> torch.Tensor:
    """Compute logits in the engine's batches: (B, S, t, H, W, C) uint8 -> (B, K) float32."""
    units = windows.flatten(0, 1)
    embeddings = torch.cat([model.encode(batch) for batch in units.split(model.cpu_batch_units)])
    return model.classify(embeddings.unflatten(0, windows.shape[:2])).float()


@torch.inference_mode()
def main(
    videos: Annotated[Path, typer.Option(help="the folder that the models were trained on")],
    cache: Annotated[Path, typer.Option(help="the training's decoded sources")] = Path("runs/sources"),
    model: Annotated[str, typer.Option(help="an embedded model")] = "camera-motion",
    batches: Annotated[int, typer.Option(help="of 32 windows")] = TEST_BATCHES,
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    spec = ModelStore().find(model).spec
    moves = SimulatedMoves(
        load_sources(videos, cache, load_config().decode, test=True),
        spec.sampling,
        spec.preprocessing.width,
        seed=TEST_SEED,
        batches=batches,
    )
    models: dict[Native, VideoModel] = {
        precision: load(model, precision) for precision in native_precisions(CPU)
    }
    logits: dict[Native, list[torch.Tensor]] = defaultdict(list)
    seconds: dict[Native, float] = defaultdict(float)
    labels: list[torch.Tensor] = []
    for batch in track((moves[index] for index in range(len(moves))), "windows", total=len(moves)):
        labels.append(batch.labels)
        for precision, each in models.items():
            start = time.thread_time()
            logits[precision].append(logits_of(each, batch.units))
            seconds[precision] += time.thread_time() - start
    wanted, reference = torch.cat(labels), torch.cat(logits["fp32"])
    title = f"{model} {spec.version}, {len(wanted)} windows"
    table = Table(title, "top-1", "lost", "answers as fp32", "least cosine", "windows/s a thread", box=None)
    right = defaultdict[Native, float](float)
    for precision, each in logits.items():
        found = torch.cat(each)
        right[precision] = (found.argmax(1) == wanted).double().mean().item()
        table.add_row(
            precision,
            f"{right[precision]:.4f}",
            f"{right['fp32'] - right[precision]:+.4f}",
            f"{(found.argmax(1) == reference.argmax(1)).double().mean().item():.4f}",
            f"{torch.cosine_similarity(found, reference).min().item():.5f}",
            f"{len(wanted) / seconds[precision]:.1f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
