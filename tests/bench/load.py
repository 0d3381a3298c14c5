"""Measures tubelet and its peers under load: one model, the same weights and clips, one interleaved run.

    python -m tests.bench.load ../shared/videos/real [--concurrency 1,4,16] [--seconds 20] [--only NAME]
    python -m tests.bench.load ../shared/videos/real --pairs 15 --seconds 6 [--also OTHER/bin/tubelet]

The model is a ViT-Ti/16 factorised encoder (12 + 4 layers, tubelets of 2 x 16 x 16, 32 frames over the whole
video) with random weights. First comes a closed loop: clients send clips in one shuffled order, each the next
one as soon as it has an answer. Then comes an open loop, with random (Poisson) arrivals; then 64 clients that
all have a deadline. The limit is the number of videos that the cores could decode and compute in full batches
if they did nothing else, or decode beside a GPU. It is measured before and after the closed loop, on all
cores at once, since other programs may use the machine. The next server starts when the last one has finished
cancelled work. There is no embedding cache.

With ``--pairs`` there are only closed loops: in each round every server has its turn, forwards and backwards.
The ratios of tubelet to each other server are medians over the rounds, with their 95 % intervals. ``--also``
adds the server of another checkout; with the ``tubelet`` of this one it is the control.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from tests.bench.costs import median_interval
from tests.bench.stages import measure_stages
from tests.bench.targets import MODEL, SERVERS, WHOLE, Target, tubelet, write_model
from tubelet.models.runtime.precision import precision_name
from tubelet.service.engine.model_loader import choose_devices

MIB = 1 << 20
CLIENTS_WITH_DEADLINE, DEADLINE_S = 64, 2.0
ARRIVALS = 1  # the seed of random times
RESTING = 0.1  # of a core; a server that takes no more does nothing
MAX_REST_S = 120.0

T = TypeVar("T")


@dataclass(slots=True)
class Load:
    """The results of clients, and the costs of the server's processes."""

    wall_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    failures: int = 0
    late: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0

    @property
    def rate(self) -> float:
        return len(self.latencies_s) / self.wall_s

    def quantile_ms(self, part: float) -> float:
        ranked = sorted(self.latencies_s)
        return 1000 * ranked[min(len(ranked) - 1, int(part * len(ranked)))] if ranked else float("nan")


def drive(
    target: Target,
    clips: list[Path],
    seconds: float,
    *,
    clients: int,
    rate: float | None = None,
    deadline_s: float = 600.0,
) -> Load:
    """Send clips for ``seconds``: at random times with a ``rate`` (videos a second), or in a closed loop."""
    lock, load, stop = threading.Lock(), Load(), threading.Event()
    order, arrivals = endlessly(clips, random.Random(0)), random.Random(ARRIVALS)

    def one() -> None:
        with lock:
            clip = next(order)
        start = time.monotonic()
        try:
            first_s = target.ask(clip, deadline_s)
        except Exception as error:
            with lock:
                load.failures += 1
            # Whoever is told to come back does: well-behaved clients do not knock all the time. Whoever would
            # come back when all is over does not count as time of the server's.
            wait_s = getattr(error, "retry_after_s", None) or 0.1
            time.sleep(max(0.0, min(wait_s, end_s - time.monotonic())))
            return
        took_s = time.monotonic() - start
        with lock:
            if took_s > deadline_s:
                load.late += 1
                return
            load.latencies_s.append(took_s)
            if first_s is not None:
                load.first_s.append(first_s)

    def client() -> None:
        while time.monotonic() < end_s:
            one()

    def watch() -> None:
        while not stop.wait(1.0):  # a look at all pages of a server takes 20 ms of a core
            load.peak_bytes = max(load.peak_bytes, target.memory_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    before, start_s = target.cpu_s(), time.monotonic()
    end_s = start_s + seconds
    with ThreadPoolExecutor(clients if rate is None else 256) as threads:
        if rate is None:
            for _ in range(clients):
                threads.submit(client)
        else:
            due_s = start_s
            while (due_s := due_s + arrivals.expovariate(rate)) < end_s:
                time.sleep(max(0.0, due_s - time.monotonic()))
                threads.submit(one)
    load.wall_s = time.monotonic() - start_s
    after = target.cpu_s()
    stop.set()
    watcher.join()
    load.cpu_s = {name: after[name] - before[name] for name in after}
    return load


def take_turns(
    targets: Sequence[Target], clips: list[Path], seconds: float, clients: int, rounds: int
) -> list[list[Load]]:
    """Drive each of ``targets`` once in each round, every second round backwards; return rounds of loads."""
    found: list[list[Load]] = []
    for number in range(rounds):
        turns = targets if number % 2 == 0 else targets[::-1]
        loads = [drive(target, clips, seconds, clients=clients) for target in turns]
        found.append(loads if number % 2 == 0 else loads[::-1])
    return found


def compare(targets: Sequence[Target], rounds: Sequence[Sequence[Load]], title: str, limit: float) -> Table:
    """Return a table of each target's medians over ``rounds``, and of the first one's ratio to each."""
    columns = ("", "videos/s", "of the limit", "p50 ms", "p99 ms", "rate of the first to it, 95 %")
    table = Table(*columns, title=f"{title}; {len(rounds)} rounds; limit {limit:.2f} videos/s", box=None)
    firsts = [loads[0].rate for loads in rounds]
    for target, loads in zip(targets, zip(*rounds, strict=True), strict=True):
        rates = [load.rate for load in loads]
        rate, low, high = median_interval([rate / limit for rate in rates])
        ratios = median_interval([first / rate for first, rate in zip(firsts, rates, strict=True)])
        table.add_row(
            target.name,
            f"{statistics.median(rates):.2f}",
            f"{rate:.0%} ({low:.0%} to {high:.0%})",
            *(f"{statistics.median(load.quantile_ms(part) for load in loads):.0f}" for part in (0.5, 0.99)),
            "{:.3f} ({:.3f} to {:.3f})".format(*ratios),
        )
    return table


def rest(target: Target) -> None:
    """Wait until the server has finished what was cancelled."""
    end_s = time.monotonic() + MAX_REST_S
    while time.monotonic() < end_s:
        before = sum(target.cpu_s().values())
        time.sleep(1)
        if sum(target.cpu_s().values()) - before < RESTING:
            return


def endlessly(clips: Sequence[T], chance: random.Random) -> Iterator[T]:
    """Yield all clips in a random order, again and again."""
    while True:
        yield from chance.sample(clips, len(clips))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--concurrency", default="1,4,16")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", default="", help="parts of servers' names, with commas between")
    parser.add_argument("--pairs", type=int, default=0, help="rounds of closed loops alone, for ratios")
    parser.add_argument("--also", type=Path, action="append", default=[], help="another tubelet command")
    arguments = parser.parse_args()
    console = Console(width=140)
    clips = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Path(folder)
        write_model(store)

        def measure_limit() -> float:
            costs = asyncio.run(measure_stages(store, MODEL, clips, WHOLE))
            found = costs.limit(cores)
            console.print(
                f"{len(clips)} clips on {cores} cores: one costs {costs.decode_s:.3f} CPU-s to decode and "
                f"{costs.compute_s:.4f} {'' if costs.threads else 'of a GPU '}to compute; "
                f"the limit is {found:.2f} videos/s"
            )
            return found

        devices = choose_devices("auto")
        console.print(f"all compute in {precision_name('auto', *devices)} on {', '.join(map(str, devices))}")
        limit = measure_limit()
        targets = [
            stack.enter_context(server(store))
            for server in SERVERS
            if any(part in server.__name__ for part in arguments.only.lower().split(","))
        ]
        targets += [stack.enter_context(tubelet(store, command)) for command in arguments.also]
        idle = {target.name: target.memory_bytes() for target in targets}
        for target in targets:
            drive(target, clips, 3, clients=2)  # out of the way what is done once only
        if arguments.pairs:
            for concurrency in map(int, arguments.concurrency.split(",")):
                rounds = take_turns(targets, clips, arguments.seconds, concurrency, arguments.pairs)
                limit = statistics.mean((limit, after := measure_limit()))
                console.print(compare(targets, rounds, f"{concurrency} clients", limit))
                limit = after
            return
        columns = ("", "videos/s", "p50 ms", "p95 ms", "p99 ms", "first ms", "failed", "late")
        shown = Table(*columns, "server CPU", "its children", "MiB above idle", box=None)
        rates: dict[str, float] = {}
        notes = Console(stderr=True)

        def add(what: str, target: Target, load: Load) -> None:
            notes.print(
                f"{what}, {target.name}: {load.rate:.2f} videos/s, p99 {load.quantile_ms(0.99):.0f} ms"
            )
            first = statistics.median(load.first_s) * 1000 if load.first_s else float("nan")
            rates[f"{what}, {target.name}"] = load.rate
            shown.add_row(
                f"{what}, {target.name}",
                f"{load.rate:.2f}",
                *(f"{load.quantile_ms(part):.0f}" for part in (0.5, 0.95, 0.99)),
                f"{first:.0f}",
                str(load.failures),
                str(load.late),
                *(f"{load.cpu_s[name] / load.wall_s / cores:.0%}" for name in ("server", "below")),
                f"{(load.peak_bytes - idle[target.name]) / MIB:.0f}",
            )

        for concurrency in map(int, arguments.concurrency.split(",")):
            for target in targets:
                add(
                    f"closed loop, {concurrency}",
                    target,
                    drive(target, clips, arguments.seconds, clients=concurrency),
                )
        limit = statistics.mean((limit, measure_limit()))
        for what, rate in rates.items():
            console.print(f"{what}: {rate / limit:.0%} of the limit")
        for target in targets:
            add(
                "open loop, 60 %",
                target,
                drive(target, clips, arguments.seconds, clients=0, rate=0.6 * limit),
            )
        for target in targets:
            load = drive(
                target, clips, arguments.seconds, clients=CLIENTS_WITH_DEADLINE, deadline_s=DEADLINE_S
            )
            add(f"{CLIENTS_WITH_DEADLINE} clients, {DEADLINE_S:g} s", target, load)
            add("right after it, 1", target, drive(target, clips, 5, clients=1))
            rest(target)
        console.print(shown)


if __name__ == "__main__":
    main()
