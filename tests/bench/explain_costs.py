"""Measures what explanations cost, beside classifying the same window with the same model, fp32, not packed.

    python -m tests.bench.explain_costs [--rounds N] [--depth N] [--threads N] [--seconds FILE] [--no-memory]

The model is a joint ViT-B with 1,568 tokens a unit (VideoMAE-B: 16 frames, tubelets of 2 x 16 x 16), with
random weights. Prints for each method the processor time, the median ratio of interleaved pairs with its 95 %
interval, and the memory (resident set) that it adds beyond what classifying adds, each in its own process.
``--seconds`` appends the rounds to a file, and counts those that it has already: a long run may be divided.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from tubelet.models.explain.explain import explain
from tubelet.models.explain.explanation import Method, Question
from tubelet.models.families.joint import JointDims
from tubelet.models.families.registry import build_model
from tubelet.models.spec import ModelSpec, Preprocessing, Sampling

FRAMES, SIZE = 16, 224
PREPROCESSING = Preprocessing(SIZE, SIZE, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LABELS = tuple(f"label {number}" for number in range(400))
MEASURED: tuple[Method, ...] = ("attention", "rollout", "relevance")


def runs(depth: int) -> dict[str, Callable[[], object]]:
    """Return what is measured by name; "classify again" is the control."""
    torch.manual_seed(0)
    dims = JointDims(FRAMES, (2, 16, 16), 768, depth, 12, 3072, pool="mean")
    model = build_model(dims, PREPROCESSING, len(LABELS)).eval().requires_grad_(False)
    spec = ModelSpec(
        *("vit-b", "1", "joint", "", "none", LABELS),
        Sampling(FRAMES, 1, window_s=1, stride_s=1, min_window_s=1, max_window_s=1),
        PREPROCESSING,
    )
    window = torch.randint(0, 256, (1, FRAMES, SIZE, SIZE, 3), dtype=torch.uint8)

    def asked(method: Method) -> Callable[[], object]:
        question = Question(method, LABELS[0] if method == "relevance" else None)
        return lambda: explain(model, spec, window, question)

    def classify() -> object:
        with torch.inference_mode():
            return model(window[None])

    return {"classify": classify, "classify again": classify} | {each: asked(each) for each in MEASURED}


def processor_s(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def interval(ratios: list[float]) -> str:
    """Return the median of ratios with its 95 % interval, by order statistics of the binomial."""
    ordered, count = sorted(ratios), len(ratios)
    reach = 0.98 * count**0.5
    low, high = max(0, round(count / 2 - reach) - 1), min(count - 1, round(count / 2 + reach))
    return f"{statistics.median(ordered):.2f} [{ordered[low]:.2f}, {ordered[high]:.2f}]"


def added_mb(run: Callable[[], object]) -> float:
    """Return how far the process grows beyond its present size during a run, MB; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # the largest size is from now on
    before = memory_mb("VmRSS")
    run()
    return memory_mb("VmHWM") - before


def memory_mb(field: str) -> float:
    """Return a size of this process as Linux states it, MB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def added_alone_mb(name: str, depth: int, threads: int) -> float:
    """Return how much memory ``name`` adds in a process of its own, MB."""
    options = ("--only", name, "--depth", str(depth), "--threads", str(threads))
    command = (sys.executable, "-m", "tests.bench.explain_costs", *options)
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="interleaved pairs")] = 15,
    depth: Annotated[int, typer.Option(min=1, help="blocks of the model")] = 12,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    seconds: Annotated[Path | None, typer.Option(help="file of rounds to go on with, lines of JSON")] = None,
    memory: Annotated[bool, typer.Option(help="measure memory, too")] = True,
    only: Annotated[str, typer.Option(help="run this one once, print the memory that it adds in MB")] = "",
) -> None:
    torch.set_num_threads(threads)
    measured = runs(depth)
    if only:
        print(added_mb(measured[only]))
        return
    done = seconds.read_text().splitlines() if seconds is not None and seconds.is_file() else []
    taken: list[dict[str, float]] = [json.loads(line) for line in done]
    for run in measured.values():
        run()
    for _ in range(rounds):
        taken.append({name: processor_s(run) for name, run in measured.items()})
        if seconds is not None:
            with seconds.open("a") as file:
                file.write(json.dumps(taken[-1]) + "\n")
    table = Table("", "processor s", "x classify", title=f"{len(taken)} rounds, {threads} threads")
    if memory:
        table.add_column("MB above classify")
    base = added_alone_mb("classify", depth, threads) if memory else 0.0
    for name in measured:
        own = [each[name] for each in taken]
        ratios = [each[name] / each["classify"] for each in taken]
        above = [f"{added_alone_mb(name, depth, threads) - base:.0f}"] if memory else []
        table.add_row(name, f"{statistics.median(own):.2f}", interval(ratios), *above)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
