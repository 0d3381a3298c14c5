"""Measures the time of a unit on a GPU: tubelet beside its kernels alone, torch.compile and transformers.

    python -m tests.bench.device [--rounds N] [--only NAME] [--batch N]

All use the same weights, and the precision that tubelet chooses unless their name has another, interleaved in
one run. *tubelet* does what the engine does: it gathers, copies and computes units from host memory, and
prepares one batch while another is computed. *kernels alone* replays the same CUDA graphs on pixels that are
on the GPU already. So are those of the peers, normalised and in their own layout. The share of the peak
refers to a large matrix product in tubelet's precision, measured in the same run. The last line of a model
has the time of a unit in batches of other sizes.
"""

import copy
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table

from tests.bench.models import FACTORISED, SIZE, THEIRS, Subject, subject
from tubelet.models.runtime.cuda_graphs import GraphedModel, recorded_sizes
from tubelet.models.runtime.precision import choose_dtype, native_precisions
from tubelet.models.spec import ModelSpec
from tubelet.service.engine.model_runner import CpuThreads, ModelRunner
from tubelet.service.engine.stage_queue import PendingBatch
from tubelet.service.types.video import UnitFrames

_GPU = torch.device("cuda")
_PEAK_SIZE = 8192
_BATCHES = 6  # in a row, so that the next is prepared while one is computed
_COMPILED = "torch.compile"

Run = Callable[[], Any]


def peak() -> Run:
    left, right = (
        torch.randn(_PEAK_SIZE, _PEAK_SIZE, device=_GPU, dtype=choose_dtype("auto", _GPU)) for _ in "ab"
    )
    return lambda: left @ right


def runner_of(case: Subject, model: GraphedModel, batch: int) -> ModelRunner:
    spec = ModelSpec(
        name="bench",
        version="1",
        family="factorised",
        description="",
        licence="",
        labels=("one",),
        sampling=case.sampling,
        preprocessing=case.model.preprocessing,
    )
    return ModelRunner(spec, model, torch.device("cuda:0"), batch, lambda units: None, CpuThreads(1))


def stream_of_batches(runner: ModelRunner, units: Sequence[UnitFrames]) -> Sequence[torch.Tensor]:
    """Compute batches as the executor's thread does: prepare one, then wait for the one before."""
    running: PendingBatch[Any] | None = None
    for _ in range(_BATCHES):
        started = runner.encode(units)
        assert isinstance(started, PendingBatch)
        if running is not None:
            running.wait()
        running = started
    assert running is not None
    return running.wait()


def contestants(case: Subject, pixels: np.ndarray, *, compiled: bool) -> dict[str, tuple[Run, int]]:
    """Return by name what each contestant runs, and the number of units that it computes."""
    batch = len(pixels)
    units = torch.from_numpy(pixels).cuda()
    model = copy.deepcopy(case.model).to(_GPU, choose_dtype("auto", _GPU))
    graphed = GraphedModel(model, case.sampling.frames_per_unit, batch)
    runner = runner_of(case, graphed, batch)
    frames = [UnitFrames(0, number, each, lambda: None) for number, each in enumerate(pixels)]
    runs: dict[str, tuple[Run, int]] = {
        "tubelet": (lambda: stream_of_batches(runner, frames), batch * _BATCHES),
        "kernels alone": (lambda: graphed.encode(units), batch),
        "plain kernels": (lambda: model.encode(units), batch),
    }
    if compiled:
        encode = torch.compile(model.encode, dynamic=False)
        runs[_COMPILED] = (lambda: encode(units), batch)
    if case.theirs is not None:
        for precision in native_precisions(_GPU):
            dtype = choose_dtype(precision, _GPU)
            theirs = copy.deepcopy(case.theirs).to(_GPU, dtype)
            clips = case.model.normalise(torch.from_numpy(pixels)).permute(0, 1, 4, 2, 3)
            clips = clips.to(_GPU, dtype)
            runs[f"transformers {precision}"] = (
                lambda theirs=theirs, clips=clips: theirs(clips).logits,
                batch,
            )
    return runs


def seconds(run: Run) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def measure(name: str, batch: int, rounds: int, compiled: bool, console: Console) -> None:
    case = subject(name)
    shape = (batch, case.sampling.frames_per_unit, SIZE, SIZE, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    runs = contestants(case, pixels, compiled=compiled)
    product = peak()
    wanted = copy.deepcopy(case.model).encode(torch.from_numpy(pixels[:2]))
    found = torch.stack(list(runs["tubelet"][0]()[:2])).float().cpu()
    for run, _ in runs.values():
        run()
    times: dict[str, list[float]] = {key: [] for key in (*runs, "peak")}
    entries = [*((key, run) for key, (run, _) in runs.items()), ("peak", product)]
    order = random.Random(0)
    for _ in range(rounds):
        for key, run in order.sample(entries, len(entries)):
            times[key].append(seconds(run))
    medians = {key: statistics.median(each) for key, each in times.items()}
    rate = 2 * _PEAK_SIZE**3 / medians["peak"]
    flops = case.flops / case.sampling.units_per_window
    table = Table(
        f"{name}, {batch} units a batch, {flops / 1e9:.0f} GFLOP a unit",
        "us a unit",
        "units/s",
        "of the peak",
        "tubelet is",
        box=None,
    )
    unit_s = {key: medians[key] / units for key, (_, units) in runs.items()}
    for key, each_s in unit_s.items():
        table.add_row(
            key,
            f"{each_s * 1e6:.0f}",
            f"{1 / each_s:.0f}",
            f"{flops / each_s / rate:.2f}",
            f"{each_s / unit_s['tubelet']:.2f} x as fast",
        )
    console.print(table)
    cosine = F.cosine_similarity(found, wanted, dim=1).min().item()
    console.print(f"  matrix product {rate / 1e12:.0f} TFLOP/s; cosine to fp32 on the CPU {cosine:.5f}")
    graphed = GraphedModel(
        copy.deepcopy(case.model).to(_GPU, choose_dtype("auto", _GPU)), case.sampling.frames_per_unit, batch
    )
    units = torch.from_numpy(pixels).cuda()
    costs = []
    for size in recorded_sizes(batch):
        part = units[:size]
        took_s = statistics.median(seconds(lambda part=part: graphed.encode(part)) for _ in range(rounds))
        costs.append(f"{size}: {took_s / size * 1e6:.0f}")
    console.print("  us a unit in batches of", ", ".join(costs), "\n")


def main(
    rounds: Annotated[int, typer.Option(min=2, help="of each contestant")] = 9,
    only: Annotated[str, typer.Option(help="a part of a model's name")] = "",
    batch: Annotated[int, typer.Option(help="units of factorised models; an eighth of it of others")] = 128,
    compiled: Annotated[bool, typer.Option(help="torch.compile too, which takes a minute a model")] = False,
) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here")
    console = Console(width=120)
    for name in (*FACTORISED, *THEIRS):
        if only in name:
            size = batch if name in FACTORISED else max(1, batch // 8)
            measure(name, size, rounds, compiled, console)


if __name__ == "__main__":
    typer.run(main)
