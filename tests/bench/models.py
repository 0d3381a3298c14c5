"""What models cost: tubelet beside transformers and OpenVINO on the same weights, interleaved in one run.

    python -m tests.bench.models [--rounds N] [--only NAME]

Prints seconds a clip (medians), GFLOP/s, the share of this chip's
matrix products in that precision as measured in the same run, and how many times as fast tubelet's bf16 is.
"""

import copy
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

from models.checkpoints.hf import read_hf
from models.contract import Preprocessing, Provenance, Sampling, VideoModel
from models.factorised import FactorisedDims
from models.families import Dims, build_model
from models.flops import window_flops
from models.memory import keep_freed_memory
from models.openvino_model import OpenVinoModel
from models.packed import PackedLinear, pack
from models.variants import VARIANTS

SIZE, CLASSES = 224, 400
PREPROCESSING = Preprocessing(SIZE, SIZE, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PEAK_SIZE = 2048  # rows and columns of the matrices whose product is the chip's peak
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
hf: Any = transformers
Run = Callable[[], torch.Tensor]
THEIRS: dict[str, Callable[[], Any]] = {
    "ViViT-B joint": lambda: hf.VivitForVideoClassification(hf.VivitConfig(num_labels=CLASSES)),
    "VideoMAE-B": lambda: hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(num_labels=CLASSES)),
    "TimeSformer-B": lambda: hf.TimesformerForVideoClassification(hf.TimesformerConfig(num_labels=CLASSES)),
}
FACTORISED = {"ViViT-B factorised": "B", "ViViT-S factorised": "S"}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model in float32, what a clip of it costs, and transformers' twin where there is one."""

    model: VideoModel
    dims: Dims
    sampling: Sampling
    theirs: Any

    @property
    def flops(self) -> int:
        return window_flops(self.dims, self.model.preprocessing, self.sampling, CLASSES).total


def subject(name: str) -> Subject:
    torch.manual_seed(0)
    if name in FACTORISED:
        v = VARIANTS[FACTORISED[name]]
        dims = FactorisedDims((2, 16, 16), 16, v.embed_dim, v.depth, 4, v.num_heads, v.mlp_dim)
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
    """Each computes the logits of one clip (1, K)."""
    runs: dict[str, Run] = {}
    for precision, dtype in DTYPES.items():
        model = copy.deepcopy(case.model).to(dtype)
        pack(model)
        runs[f"tubelet {precision}"] = lambda model=model: batched(model, units)
    for precision, dtype in DTYPES.items():
        if case.theirs is None:
            # transformers has no factorised encoder: plain layers and torch's own attention stand for it.
            model = copy.deepcopy(case.model).to(dtype)
            runs[f"eager {precision}"] = lambda model=model: eager(model, units)
        else:
            model = copy.deepcopy(case.theirs).to(dtype)
            pixels = case.model.normalise(units).permute(0, 1, 4, 2, 3).to(dtype)
            runs[f"transformers {precision}"] = lambda model=model, pixels=pixels: model(pixels).logits
    on_openvino = OpenVinoModel(case.model, case.sampling.frames_per_unit, torch.bfloat16)
    runs["tubelet on OpenVINO bf16"] = lambda: batched(on_openvino, units)
    runs["OpenVINO bf16"] = openvino(case.model, units)
    return runs


def batched(model: VideoModel, units: torch.Tensor) -> torch.Tensor:
    """As the engine runs it: batches of the size that suits a processor, then the window."""
    embeddings = torch.cat([model.encode(batch) for batch in units.split(model.cpu_batch_units)])
    return model.classify(embeddings[None])


def eager(model: VideoModel, units: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():  # where gradients may be wanted, attention is torch's own
        return model(units[None])


def openvino(model: VideoModel, units: torch.Tensor) -> Run:
    import openvino as ov

    model = copy.deepcopy(model)
    # Its converter does not follow operations in place.
    model.normalise = lambda units: (units.to(model.mean.dtype) / 255 - model.mean) / model.std

    class Whole(torch.nn.Module):
        """One graph from uint8 units to logits."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, units: torch.Tensor) -> torch.Tensor:
            return self.model(units[None])

    converted = ov.convert_model(Whole(), example_input=units)
    converted.reshape(list(units.shape))
    options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = ov.compile_model(converted, "CPU", options | {"PERFORMANCE_HINT": "LATENCY"})
    return lambda: torch.from_numpy(compiled(units.numpy())[0])


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def products(dtype: torch.dtype) -> list[Callable[[], object]]:
    """A large matrix product by each of torch's ways; the fastest is the peak."""
    left, right = torch.randn(PEAK_SIZE, PEAK_SIZE), torch.randn(PEAK_SIZE, PEAK_SIZE)
    linear = torch.nn.Linear(PEAK_SIZE, PEAK_SIZE, bias=False).requires_grad_(False).to(dtype)
    packed, left, right = PackedLinear(linear.weight, None), left.to(dtype), right.to(dtype)
    return [lambda: left @ right, lambda: packed(left)]


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
    wanted = runs["tubelet fp32"]().float()
    cosines = {key: F.cosine_similarity(run().float(), wanted).item() for key, run in runs.items()}
    times: dict[str, list[float]] = {key: [] for key in (*runs, *peaks)}
    for _ in range(rounds):
        for key, run in (*runs.items(), *peaks.items()):
            times[key].append(seconds(run))
    medians = {key: statistics.median(each) for key, each in times.items()}
    fastest = {precision: min(medians[f"{precision} {way}"] for way in (0, 1)) for precision in DTYPES}
    rates = {precision: 2 * PEAK_SIZE**3 / each for precision, each in fastest.items()}
    columns = ("s a clip", "GFLOP/s", "of the peak", "tubelet bf16 is", "cosine to fp32")
    table = Table(f"{name}, {case.flops / 1e9:.0f} GFLOP a clip", *columns, box=None)
    for key in runs:
        rate = case.flops / medians[key]
        table.add_row(
            key,
            f"{medians[key]:.3f}",
            f"{rate / 1e9:.0f}",
            f"{rate / rates[key.split()[-1]]:.2f}",
            f"{medians[key] / medians['tubelet bf16']:.2f} x as fast",
            f"{cosines[key]:.6f}",
        )
    console.print(table)
    console.print(
        "  matrix product:", ", ".join(f"{p} {r / 1e9:.0f} GFLOP/s" for p, r in rates.items()), "\n"
    )


def main(
    rounds: Annotated[int, typer.Option(help="of each contestant")] = 5,
    only: Annotated[str, typer.Option(help="a part of a model's name")] = "",
) -> None:
    console = Console(width=120)
    keep_freed_memory()
    for name in (*FACTORISED, *THEIRS):
        if only in name:
            measure(name, rounds, console)


if __name__ == "__main__":
    typer.run(main)
