"""Measures the speed of the decoder beside its peers, on equal frames, in one interleaved run.

    python -m tests.bench.decode [--rounds N] [--only TEXT]

Each contestant gets the path of a clip and the times of frames, and returns those frames at a model's size
(see ``tests.bench.decoders``). tubelet decodes in one worker of its pool, with as many FFmpeg threads as its
peers. Beside the wall time stands the processor time of all processes involved, which depends less on other
programs. A ratio is the median over rounds of a peer's time to tubelet's in the same round. The returned
frames are identified by the numbers stamped on them (``tests.bench.footage``), and their pixels are compared
with tubelet's; the text below the table lists errors. The last table is the whole pool: several files at once
through one worker and through two. Below it, ffmpeg programs decode the same files in two independent
processes, since cores may share memory bandwidth and power.

Install the peers with ``pip install 'tubelet[bench]'``; missing ones are named and left out. A default run
takes half an hour on two idle cores; the first one also renders the clips.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from tests.bench.costs import Cost, Others, median, ratio, timed
from tests.bench.decoders import OURS, Contestant, Request, Tubelet, peers
from tests.bench.footage import (
    LONG_FEW_KEYS,
    LONG_MANY_KEYS,
    REAL,
    SHORT_360P,
    SHORT_1080P,
    SHOTS,
    Clip,
    rendered,
    stamps,
)
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import SamplingGrid
from tubelet.service.types.video import NS_PER_S

# And how often a round measures each: the slow ones take most of the time.
CLIPS = ((SHORT_360P, 8), (SHORT_1080P, 3), (LONG_FEW_KEYS, 1), (LONG_MANY_KEYS, 2))
FILES_AT_ONCE = ((SHORT_360P, 32), (SHORT_1080P, 8))
POOL = "the whole pool"
WORKERS = (1, 2)
THREADS = (1, 2)
DENSE_S = 20  # dense means so much of the middle of a longer clip
MAX_APART = 2.5  # of 255: filters differ by less

Key = tuple[int, str]  # threads, name of the contestant


@dataclass(slots=True)
class Entry:
    """A contestant on a request: the costs of its rounds, and the errors in its frames."""

    contestant: Contestant
    request: Request
    costs: list[Cost] = field(default_factory=list)
    misses: set[int] = field(default_factory=set)  # by how many frames one was not the wanted one
    apart: float = 0.0  # from tubelet's pixels, of 255: the worst mean of a round
    failure: Exception | None = None

    @property
    def is_right(self) -> bool:
        return not self.misses and self.failure is None


Entries = dict[str, dict[Key, Entry]]  # by name of the request


def requests(clip: Clip) -> dict[str, Request]:
    """Return requests by name: frames spread over all of ``clip``, and windows of 2 s at 8 frames/s."""
    end_ns = clip.duration_ns
    dense_ns = min(end_ns, DENSE_S * NS_PER_S)
    start_ns = (end_ns - dense_ns) // 2
    grids = {
        "uniform 16": SamplingGrid(0, end_ns, end_ns, 2, 8, 8),
        "uniform 32": SamplingGrid(0, end_ns, end_ns, 2, 16, 16),
        f"dense, {dense_ns // NS_PER_S} s": SamplingGrid(
            start_ns, start_ns + dense_ns, 2 * NS_PER_S, 2, 8, 8
        ),
    }
    return {name: Request(clip.width, clip.height, grid) for name, grid in grids.items()}


async def measure_clip(clip: Clip, rounds: int, console: Console) -> None:
    path = rendered(clip)
    async with AsyncExitStack() as stack:
        contestants: dict[Key, Contestant] = {}
        for threads in THREADS:
            pool = await stack.enter_async_context(DecodePool(DecodeConfig(workers=1, threads=threads)))
            contestants[threads, OURS] = Tubelet(pool)
            contestants |= {(threads, name): peer for name, peer in peers(threads)[0].items()}
        entries = {
            name: {key: Entry(contestant, request) for key, contestant in contestants.items()}
            for name, request in requests(clip).items()
        }
        await warm_up(path, contestants)
        others = Others()
        for _ in range(rounds):
            for each in entries.values():
                await play_round(clip, path, each)
    console.print(_title(clip.name, rounds, others))
    console.print(table(entries))
    for remark in remarks(entries):
        console.print(f"  {remark}")
    console.print()


async def warm_up(path: Path, contestants: dict[Key, Contestant]) -> None:
    """Load the file into the page cache, and let each contestant do what it does only once."""
    path.read_bytes()
    short = rendered(SHORT_360P)
    for contestant in contestants.values():
        with suppress(Exception):  # it will fail again where that counts
            await contestant.decode(short, requests(SHORT_360P)["uniform 16"])


async def play_round(clip: Clip, path: Path, entries: dict[Key, Entry]) -> None:
    """Run each contestant once, one after another; their frames are checked outside of the measured time."""
    ours = None
    for (_, name), entry in entries.items():
        if entry.failure is not None:
            continue
        try:
            frames, cost = await timed(entry.contestant.decode(path, entry.request))
        except Exception as error:
            if name == OURS:
                raise
            entry.failure = error
            continue
        entry.costs.append(cost)
        wanted = [clip.number_at(time_ns) for time_ns in entry.request.times_ns]
        entry.misses |= {int(miss) for miss in stamps(frames) - wanted if miss}
        ours = frames if ours is None else ours
        entry.apart = max(entry.apart, float(np.abs(np.subtract(frames, ours, dtype=np.int16)).mean()))


def _title(name: str, rounds: int, others: Others) -> str:
    return f"{name}: median of {rounds} rounds, while other processes took {others.share():.0%} of all cores"


def table(entries: Entries) -> Table:
    """Return a row for each contestant, and one for the fastest peer with the right frames."""
    shown = Table(box=None)
    shown.add_column(no_wrap=True)
    for name in entries:
        for header in (f"{name}\nms", "\nCPU ms", "\nx (CPU)"):
            shown.add_column(header, justify="right", no_wrap=True)
    for threads in THREADS:
        shown.add_row(_threads(threads), style="bold")
        names = [name for each, name in next(iter(entries.values())) if each == threads]
        for name in names:
            shown.add_row(
                name, *(cell for each in entries.values() for cell in _cells(each, (threads, name)))
            )
        best = (cell for each in entries.values() for cell in ("", "", _best(each, threads)))
        shown.add_row("the best of them", *best, end_section=True)
    return shown


def _cells(entries: dict[Key, Entry], key: Key) -> tuple[str, str, str]:
    entry = entries[key]
    if entry.failure is not None:
        return "failed", "", ""
    cost = median(entry.costs)
    times = "" if key[1] == OURS else _times(ratio(entry.costs, entries[key[0], OURS].costs))
    return f"{'' if entry.is_right else 'wrong '}{cost.wall_s * 1000:.0f}", f"{cost.cpu_s * 1000:.0f}", times


def _best(entries: dict[Key, Entry], threads: int) -> str:
    ratios = [
        ratio(entry.costs, entries[threads, OURS].costs)
        for (each, name), entry in entries.items()
        if each == threads and name != OURS and entry.is_right
    ]
    if not ratios:
        return ""
    return _times(Cost(min(each.wall_s for each in ratios), min(each.cpu_s for each in ratios)))


def _times(ratios: Cost) -> str:
    return f"{ratios.wall_s:.2f} ({ratios.cpu_s:.2f})"


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def remarks(entries: Entries) -> Iterator[str]:
    """Return the errors in returned frames, and the differences of pixels from tubelet's."""
    apart: dict[str, float] = {}
    for request, each in entries.items():
        for (threads, name), entry in each.items():
            who = f"{name}, {_threads(threads)}, {request}"
            if entry.failure is not None:
                yield f"FAILED: {who}: {entry.failure!r}"
            elif entry.misses:
                yield f"WRONG FRAMES: {who}: by {min(entry.misses):+} to {max(entry.misses):+} frames"
            elif name != OURS:
                apart[name] = max(apart.get(name, 0), entry.apart)
    for name, most in apart.items():
        mark = "OTHER PIXELS: " if most > MAX_APART else ""
        yield f"{mark}pixels of {name} differ from {OURS}'s by {most:.1f} of 255 in the mean, at most"


async def measure_pool(rounds: int, console: Console) -> None:
    async with AsyncExitStack() as stack:
        contestants: dict[int, Contestant] = {}
        for workers in WORKERS:
            pool = await stack.enter_async_context(DecodePool(DecodeConfig(workers=workers, threads=1)))
            contestants[workers] = Tubelet(pool)
        others = Others()
        rows = [row for each in FILES_AT_ONCE for row in await _pool_rows(*each, contestants, rounds)]
    columns = ("uniform 16 of", "workers", "videos/s", "x one worker", "CPU ms a video")
    shown = Table(*columns, box=None)
    for row in rows:
        shown.add_row(*row)
    console.print(_title(POOL, rounds, others))
    console.print(shown)


async def _pool_rows(
    clip: Clip, files: int, contestants: dict[int, Contestant], rounds: int
) -> list[tuple[str, ...]]:
    path, request = rendered(clip), requests(clip)["uniform 16"]
    pools: dict[int, list[Cost]] = {workers: [] for workers in contestants}
    machine: dict[int, list[Cost]] = {processes: [] for processes in contestants}
    for _ in range(rounds):
        for workers, contestant in contestants.items():
            decodings = (contestant.decode(path, request) for _ in range(files))
            pools[workers].append((await timed(asyncio.gather(*decodings)))[1])
        for processes, costs in machine.items():
            costs.append((await timed(_decode_apart(path, files, processes)))[1])
    named = {f"{files} x {clip.name} at once": pools, "whole, by ffmpeg processes": machine}
    return [row for name, costs in named.items() for row in _scaling_rows(name, files, costs)]


async def _decode_apart(path: Path, files: int, processes: int) -> None:
    """Decode the file ``files`` times, in ``processes`` independent ffmpeg programs of one thread each."""
    looped = "-stream_loop", str(files // processes - 1), "-i", str(path), "-an", "-f", "null", "-"
    command = "ffmpeg", "-v", "error", "-threads", "1", *looped
    running = [await asyncio.create_subprocess_exec(*command) for _ in range(processes)]
    await asyncio.gather(*(process.wait() for process in running))


def _scaling_rows(name: str, files: int, costs: dict[int, list[Cost]]) -> Iterator[tuple[str, ...]]:
    for workers, each in costs.items():
        cost, gain = median(each), ratio(costs[WORKERS[0]], each)
        cells = f"{files / cost.wall_s:.2f}", f"{gain.wall_s:.2f}", f"{cost.cpu_s / files * 1000:.0f}"
        yield name, str(workers), *cells


async def measure(rounds: int, only: str, console: Console) -> None:
    for clip, often in CLIPS:
        if only in clip.name:
            await measure_clip(clip, rounds * often, console)
    if only in POOL:
        await measure_pool(3 * rounds, console)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="of the slowest clip; the others get more")] = 2,
    only: Annotated[str, typer.Option(help=f"a part of a clip's name, or of: {POOL}")] = "",
) -> None:
    console = Console(width=128)
    if missing := [shot for shot in SHOTS if not (REAL / shot).is_file()]:
        console.print(f"Nothing is measured: clips are made of real videos, and {REAL} has no {missing[0]}.")
        return
    for name, why in peers(THREADS[0])[1].items():
        console.print(f"{name} is left out: {why}")
    console.print(f"x: how many times as fast {OURS} is, and (CPU) by how many times it works less\n")
    asyncio.run(measure(rounds, only, console))


if __name__ == "__main__":
    typer.run(main)
