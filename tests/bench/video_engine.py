"""Decoding by a GPU's video engine beside decoding in software: the same frames, from the same workers.

    python -m tests.bench.video_engine [--rounds N]

Clips of 10 seconds in three sizes: one at a time in one worker, then as many at once as there are cores,
each in a worker of its own, with and without ``decode.hardware = "cuda"``, interleaved. Beside the wall time
stands the processor time of all processes. Needs such a device, and ``tests.bench.footage``'s clips, rendered
there or brought along.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated, Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from tests.bench.costs import Cost, median, ratio, timed
from tests.bench.decode import requests
from tests.bench.decoders import Request, Tubelet
from tests.bench.footage import SHORT_360P, SHORT_1080P, SHORT_2160P, Clip, rendered, stamps
from tubelet.service.config.config import DecodeConfig
from tubelet.service.config.cores import usable_cores
from tubelet.service.decode.demux.hwaccel import accelerator
from tubelet.service.decode.pool.pool import DecodePool

CLIPS = (SHORT_360P, SHORT_1080P, SHORT_2160P)
WAYS: tuple[Literal["none", "cuda"], ...] = ("none", "cuda")


async def measure(clip: Clip, name: str, request: Request, workers: int, rounds: int) -> tuple[str, ...]:
    """A row: ``workers`` clips at once in as many workers."""
    path, wanted = rendered(clip), [clip.number_at(time_ns) for time_ns in request.times_ns]
    costs: dict[str, list[Cost]] = {way: [] for way in WAYS}
    async with AsyncExitStack() as stack:
        contestants: dict[str, Tubelet] = {}
        for way in WAYS:
            config = DecodeConfig(workers=workers, hardware=way)
            contestants[way] = Tubelet(await stack.enter_async_context(DecodePool(config)))
        for number in range(rounds + 1):
            for way, contestant in contestants.items():
                decodings = (contestant.decode(path, request) for _ in range(workers))
                found, cost = await timed(asyncio.gather(*decodings))
                for frames in found:
                    assert np.array_equal(stamps(frames), wanted), f"other frames of {clip.name} by {way}"
                if number:  # the first one makes contexts
                    costs[way].append(cost)
    software, engine = (median(costs[way]) for way in WAYS)
    gain = ratio(costs["none"], costs["cuda"])
    cells = (f"{cost.wall_s * 1000:.0f} ({cost.cpu_s / workers * 1000:.0f})" for cost in (software, engine))
    return f"{workers} x {clip.name}", name, *cells, f"{gain.wall_s:.2f} ({gain.cpu_s:.2f})"


async def measure_all(rounds: int, console: Console) -> None:
    shown = Table("", "", "software: ms (CPU ms each)", "video engine", "x (CPU)", box=None)
    for workers in (1, usable_cores()):
        for clip in CLIPS:
            for name, request in requests(clip).items():
                row = await measure(clip, name, request, workers, rounds)
                console.print(*row, sep=" | ")
                shown.add_row(*row)
    console.print(shown)


def main(rounds: Annotated[int, typer.Option(min=1)] = 3) -> None:
    console = Console(width=128)
    if accelerator("cuda") is None:
        console.print("Nothing is measured: there is no video engine here.")
        return
    asyncio.run(measure_all(rounds, console))


if __name__ == "__main__":
    typer.run(main)
