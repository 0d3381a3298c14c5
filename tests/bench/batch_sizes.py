"""Batch sizes that an engine chooses beside a busy program, and what they cost.

    python -m tests.bench.batch_sizes [--starts 10] [--busy-s 20] [--watch-s 40]

Starts an engine ``--starts`` times, each in a process of its own, beside another process that computes on all
cores and ends after ``--busy-s`` seconds. The table has the size that each model had when it was loaded and
``--watch-s`` seconds after the start. Then batches of all sizes are measured with nothing beside them:
processor time and wall time a unit on one thread, as under load, and wall time a unit on all threads, as for
a batch alone. The program exits with 1 where a final size costs more than 1.1 times the best in one of them.
It takes ``--starts`` times ``--watch-s`` seconds and a minute. Let nothing else run meanwhile.
"""

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from tests.bench.costs import Others
from tubelet.models.repository.repository import ModelStore
from tubelet.models.runtime.host_memory import keep_freed_memory
from tubelet.models.runtime.precision import choose_dtype
from tubelet.service.config.config import EngineConfig
from tubelet.service.config.cores import usable_cores
from tubelet.service.engine.batch_meter import dummy_units
from tubelet.service.engine.batch_tuner import largest_batch
from tubelet.service.engine.engine import Engine
from tubelet.service.engine.model_loader import load_model
from tubelet.service.engine.model_runner import CpuThreads, ModelRunner
from tubelet.service.metrics import Metrics
from tubelet.service.types.video import UnitFrames

MODELS = ("camera-motion", "camera-motion-stack")
MOST_RATIO = 1.1
MOST_OTHERS = 0.05  # of all cores
ROUNDS = 15
MEASURES = ("processor time, one thread", "wall time, one thread", "wall time, all threads")

SPAWN = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork

Sizes = dict[str, tuple[int, int]]  # by model: when it was loaded, and at the end
Costs = dict[int, tuple[float, ...]]  # by size: seconds a unit, in each of MEASURES


async def watched(watch_s: float) -> Sizes:
    """Load the models and return their batch sizes, then and ``watch_s`` seconds after the start."""
    store, began = ModelStore(), time.monotonic()
    async with Engine(EngineConfig(device="cpu"), Metrics()) as engine:
        models = [await engine.load(store, store.find(name).spec) for name in MODELS]
        loaded = [model.encode.tuning.max_size for model in models]
        await asyncio.sleep(max(0.0, began + watch_s - time.monotonic()))
        return {
            model.spec.name: (size, model.encode.tuning.max_size)
            for model, size in zip(models, loaded, strict=True)
        }


def start(watch_s: float) -> Sizes:
    """Run ``watched`` in a process."""
    return asyncio.run(watched(watch_s))


def compute(seconds: float, computing: Event) -> None:
    """Multiply matrices on all cores."""
    matrix = torch.rand(1024, 1024)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        torch.mm(matrix, matrix)
        computing.set()


@contextmanager
def neighbour(seconds: float) -> Iterator[None]:
    """A busy process that ends after ``seconds``, or with the context."""
    computing = SPAWN.Event()
    process = SPAWN.Process(target=compute, args=(seconds, computing))
    process.start()
    try:
        computing.wait()
        yield
    finally:
        process.kill()
        process.join()


@torch.inference_mode()
def measure(name: str) -> Costs:
    """Return the least cost a unit of each size, over rounds in which every size is measured once."""
    store, config, device = ModelStore(), EngineConfig(device="cpu"), torch.device("cpu")
    spec = store.find(name).spec
    largest = largest_batch(spec, "cpu")
    model = load_model(config, store, spec, device, choose_dtype(config.precision, device), largest)

    def runner(threads: int) -> ModelRunner:
        return ModelRunner(spec, model, device, largest, lambda units: None, CpuThreads(threads))

    def cost(runner: ModelRunner, units: list[UnitFrames]) -> tuple[float, float]:
        cpu_s, wall_s = time.thread_time(), time.monotonic()
        runner.encode(units)
        return (time.thread_time() - cpu_s) / len(units), (time.monotonic() - wall_s) / len(units)

    sizes = [size for size in (1 << power for power in range(10)) if size <= largest]
    found: dict[int, list[tuple[float, ...]]] = {size: [] for size in sizes}
    for runners in (runner(1), runner(usable_cores())):
        for number in range(ROUNDS + 1):
            for size in sizes:
                each = cost(runners, list(dummy_units(spec, range(size))))
                if number:  # the first one compiles
                    found[size].append(each)
    one, every = slice(0, ROUNDS), slice(ROUNDS, None)
    return {
        size: (*np.min(costs[one], axis=0).tolist(), float(np.min(costs[every], axis=0)[1]))
        for size, costs in found.items()
    }


def relative(costs: Costs) -> Costs:
    """Return each cost to the least of its measure."""
    least = np.min(list(costs.values()), axis=0)
    return {size: tuple((np.array(each) / least).tolist()) for size, each in costs.items()}


def counted(sizes: list[int]) -> str:
    return ", ".join(f"{size} ({times} x)" for size, times in sorted(Counter(sizes).items()))


def report(name: str, starts: list[Sizes], costs: Costs, console: Console) -> bool:
    """Print a model's sizes and costs; return whether all final sizes are cheap enough."""
    loaded, final = zip(*(start[name] for start in starts), strict=True)
    ratios = relative(costs)
    shown = Table("units a batch", *(f"{measure}: ms, x" for measure in MEASURES), box=None)
    for size, each in costs.items():
        cells = (f"{s * 1e3:.3f}  {x:.2f}" for s, x in zip(each, ratios[size], strict=True))
        shown.add_row(str(size), *cells)
    worst = max(max(ratios[size]) for size in final)
    console.print(f"\n[b]{name}[/b]: loaded with {counted(list(loaded))}, at the end {counted(list(final))}")
    console.print(shown)
    console.print(f"the worst final size costs {worst:.2f} times the best; at most {MOST_RATIO} is wanted")
    return worst <= MOST_RATIO


def main(
    starts: Annotated[int, typer.Option(min=1)] = 10,
    busy_s: Annotated[float, typer.Option(min=0)] = 20.0,
    watch_s: Annotated[float, typer.Option(min=0)] = 40.0,
) -> None:
    console = Console(width=128)
    found: list[Sizes] = []
    for number in range(starts):
        with neighbour(busy_s), ProcessPoolExecutor(1, mp_context=SPAWN) as process:
            found.append(process.submit(start, watch_s).result())
        console.print(f"start {number + 1} of {starts}: {found[-1]}")
    keep_freed_memory()
    others = Others()
    costs = {name: measure(name) for name in MODELS}
    share = others.share()
    console.print(f"\nother programs took {share:.0%} of the cores while costs were measured")
    if share > MOST_OTHERS:
        console.print("[b]That was not alone:[/b] wall times mean nothing, processor times not much.")
    good = [report(name, found, costs[name], console) for name in MODELS]
    raise typer.Exit(not all(good))


if __name__ == "__main__":
    typer.run(main)
