"""Measures models on a CPU: tubelet beside transformers, with the same weights, in one run.

    python -m tests.bench.models [--rounds N] [--only NAME]

Prints for each contestant the seconds a clip (lower quartiles), GFLOP/s, the share of the peak, which is that
of a matrix product in this precision measured in the same run, and how many times faster tubelet is in the
precision that it chooses. Only precisions that this CPU multiplies natively take part.
"""

import copy
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import transformers
import typer
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tubelet.models.checkpoints.huggingface import read_hf
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.registry import Dims, build_model
from tubelet.models.flops import window_flops
from tubelet.models.runtime.host_memory import keep_freed_memory
from tubelet.models.runtime.int8 import Int8Linear
from tubelet.models.runtime.onednn import PackedLinear, pack
from tubelet.models.runtime.precision import auto_precision, choose_dtype, native_precisions
from tubelet.models.spec import Preprocessing, Provenance, Sampling
from tubelet.models.video_model import VideoModel

SIZE, CLASSES = 224, 400
PREPROCESSING = Preprocessing(SIZE, SIZE, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PEAK_SIZE = 2048  # rows and columns of the matrices whose product is the chip's peak
CPU = torch.device("cpu")
NATIVE, AUTO = native_precisions(CPU), auto_precision(CPU)
DTYPES = {precision: choose_dtype(precision, CPU) for precision in NATIVE if precision != "int8"}
hf: Any = transformers
Run = Callable[[], torch.Tensor]
THEIRS: dict[str, Callable[[], Any]] = {
    "ViViT-B joint": lambda: hf.VivitForVideoClassification(hf.VivitConfig(num_labels=CLASSES)),
    "VideoMAE-B": lambda: hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(num_labels=CLASSES)),
    "TimeSformer-B": lambda: hf.TimesformerForVideoClassification(hf.TimesformerConfig(num_labels=CLASSES)),
}
FACTORISED = {
    "ViViT-B factorised": FactorisedDims((2, 16, 16), 16, 768, 12, 4, 12, 3072),
    "ViViT-S factorised": FactorisedDims((2, 16, 16), 16, 384, 12, 4, 6, 1536),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model in float32, the FLOPs of a clip, and the same model of transformers where there is one."""

    model: VideoModel
    dims: Dims
    sampling: Sampling
    theirs: Any

    @property
    def flops(self) -> int:
        return window_flops(self.dims, self.model.preprocessing, self.sampling, CLASSES).total

    @property
    def their_flops(self) -> int:
        """The FLOPs of transformers, which computes all tokens of the last block, not only those used."""
        shape = (1, self.sampling.frames_per_window, 3, SIZE, SIZE)
        theirs = copy.deepcopy(self.theirs).to("meta")
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            theirs(torch.empty(shape, device="meta"))
        return counter.get_total_flops()


def subject(name: str) -> Subject:
    torch.manual_seed(0)
    if name in FACTORISED:
        dims = FACTORISED[name]
        model = build_model(dims, PREPROCESSING, CLASSES).eval()
        return Subject(model, dims, Sampling(2, 16, 2.0, 2.0, 0.5, 8.0), None)
    theirs = THEIRS[name]().eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        hf.VideoMAEImageProcessor().save_pretrained(folder)
        foreign = read_hf(Path(folder), Provenance(name), None)
    model = build_model(foreign.dims, foreign.preprocessing, CLASSES).eval()
    model.load_state_dict(foreign.state)
    return Subject(model, foreign.dims, foreign.sampling, theirs)


def contestants(case: Subject, units: torch.Tensor) -> dict[str, Run]:
    """Return the contestants by name; each computes the logits of one clip, (1, K)."""
    runs: dict[str, Run] = {}
    for precision, dtype in DTYPES.items():
        model = copy.deepcopy(case.model).to(dtype)
        pack(model)
        runs[f"tubelet {precision}"] = lambda model=model: batched(model, units)
    if "int8" in NATIVE:
        quantised = copy.deepcopy(case.model).to(choose_dtype("int8", CPU))
        pack(quantised, Int8Linear)
        runs["tubelet int8"] = lambda: batched(quantised, units)
    for precision, dtype in DTYPES.items():
        if case.theirs is None:
            # transformers has no factorised encoder: plain layers and torch's own attention stand for it.
            model = copy.deepcopy(case.model).to(dtype)
            runs[f"eager {precision}"] = lambda model=model: model(units[None])
        else:
            model = copy.deepcopy(case.theirs).to(dtype)
            pixels = case.model.normalise(units).permute(0, 1, 4, 2, 3).to(dtype)
            runs[f"transformers {precision}"] = lambda model=model, pixels=pixels: model(pixels).logits
    return runs


def batched(model: VideoModel, units: torch.Tensor) -> torch.Tensor:
    """Compute a clip as the engine does: its units in batches of a size for CPUs, then the window."""
    embeddings = torch.cat([model.encode(batch) for batch in units.split(model.cpu_batch_units)])
    return model.classify(embeddings[None])


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def products(dtype: torch.dtype) -> list[Callable[[], object]]:
    """Return each of torch's ways to compute a large matrix product; the fastest is the peak."""
    left, right = torch.randn(PEAK_SIZE, PEAK_SIZE), torch.randn(PEAK_SIZE, PEAK_SIZE)
    linear = torch.nn.Linear(PEAK_SIZE, PEAK_SIZE, bias=False).requires_grad_(False).to(dtype)
    packed, left, right = PackedLinear(linear.weight, None), left.to(dtype), right.to(dtype)
    return [lambda: left @ right, lambda: packed(left)]


def int8_product() -> Callable[[], object]:
    linear = Int8Linear(torch.randn(PEAK_SIZE, PEAK_SIZE), torch.zeros(PEAK_SIZE))
    levels = torch.randint(0, 256, (PEAK_SIZE, PEAK_SIZE), dtype=torch.uint8)
    return lambda: linear.product(levels, choose_dtype("int8", CPU))


@torch.inference_mode()
def measure(name: str, rounds: int, console: Console) -> None:
    case = subject(name)
    shape = (case.sampling.units_per_window, case.sampling.frames_per_unit, SIZE, SIZE, 3)
    units = torch.randint(0, 256, shape, dtype=torch.uint8)
    runs = contestants(case, units)
    peaks = {
        f"{precision} {way}": product
        for precision, dtype in DTYPES.items()
        for way, product in enumerate(products(dtype))
    }
    if "int8" in NATIVE:
        peaks["int8 0"] = int8_product()
    wanted = runs["tubelet fp32"]().float()
    cosines = {key: F.cosine_similarity(run().float(), wanted).item() for key, run in runs.items()}
    times: dict[str, list[float]] = {key: [] for key in (*runs, *peaks)}
    entries, order = [*runs.items(), *peaks.items()], random.Random(0)
    for _ in range(rounds):
        # In an order of its own: threads of the one before may still spin while the next begins.
        for key, run in order.sample(entries, len(entries)):
            times[key].append(seconds(run))
    # Not the median: what else runs on a machine only ever makes a round longer.
    quartiles = {key: statistics.quantiles(each, n=4)[0] for key, each in times.items()}
    rates: dict[str, float] = {}
    for key in peaks:
        rates[key.split()[0]] = max(rates.get(key.split()[0], 0), 2 * PEAK_SIZE**3 / quartiles[key])
    their_flops = 0 if case.theirs is None else case.their_flops
    columns = ("s a clip", "GFLOP/s", "of the peak", f"tubelet {AUTO} is", "cosine to fp32")
    table = Table(f"{name}, {case.flops / 1e9:.0f} GFLOP a clip", *columns, box=None)
    for key in runs:
        rate = (their_flops if key.startswith("transformers") else case.flops) / quartiles[key]
        table.add_row(
            key,
            f"{quartiles[key]:.3f}",
            f"{rate / 1e9:.0f}",
            f"{rate / rates[key.split()[-1]]:.2f}",
            f"{quartiles[key] / quartiles[f'tubelet {AUTO}']:.2f} x as fast",
            f"{cosines[key]:.6f}",
        )
    console.print(table)
    console.print(
        "  matrix product:", ", ".join(f"{p} {r / 1e9:.0f} GFLOP/s" for p, r in rates.items()), "\n"
    )


def main(
    rounds: Annotated[int, typer.Option(min=2, help="of each contestant")] = 5,
    only: Annotated[str, typer.Option(help="a part of a model's name")] = "",
) -> None:
    console = Console(width=120)
    keep_freed_memory()
    for name in (*FACTORISED, *THEIRS):
        if only in name:
            measure(name, rounds, console)


if __name__ == "__main__":
    typer.run(main)
