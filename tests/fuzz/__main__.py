"""Fuzz the decoder by hand.

    python -m tests.fuzz ../shared/videos/odd [--mutants 20000] [--first 0]

Mutants of every clip of up to 200 kB below the folder go through the real pool of workers. The program prints
outcomes by reason, worker failures by cause, the slowest mutant, leaks, and the course of memory. It exits
with status 1 after a hang, a crash, a leak or an unexpected error.
"""

import asyncio
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from tests.fuzz.campaign import Report, run_campaign

_LARGEST_BYTES = 200_000  # larger clips take long to decode and break in the same places
_GROWTH_BYTES = 64 << 20  # of the server, between the first thousand mutants and the last


def main(
    folder: Path,
    mutants: Annotated[int, typer.Option(min=1)] = 20_000,
    first: Annotated[int, typer.Option(help="The first seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    clips = [path.read_bytes() for path in files if 0 < path.stat().st_size <= _LARGEST_BYTES]
    seeds = range(first, first + mutants)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"mutants of {len(clips)} clips", total=mutants)
        report = asyncio.run(
            run_campaign(clips, seeds, len(os.sched_getaffinity(0)), lambda: progress.advance(bar))
        )
    if as_json:
        print(json.dumps({field.name: getattr(report, field.name) for field in fields(report)}))
    else:
        _show(report, len(clips))
    raise typer.Exit(1 if _is_bad(report) else 0)


def _show(report: Report, clips: int) -> None:
    out = Console(highlight=False)
    out.print(f"{report.outcomes.total()} mutants of {clips} clips")
    for outcome, number in report.outcomes.most_common():
        out.print(f"  {number:7} {outcome}")
    out.print(f"worker failures: {dict(report.failures) or 'none'}")
    out.print(f"slowest: {report.slowest_s:.1f} s, seed {report.slowest_seed}; hung: {report.hung or 'none'}")
    out.print(f"leaked: {report.leaked_descriptors} descriptors, {report.leaked_processes} processes")
    now_and_then = report.rss_bytes[:: max(1, len(report.rss_bytes) // 10)]
    out.print(f"memory of the server, MiB: {[rss >> 20 for rss in now_and_then]}")
    for seed, error in (report.surprises | report.crashes).items():
        out.print(f"seed {seed}: {error}")


def _is_bad(report: Report) -> bool:
    settled = report.rss_bytes[4:]
    grown = settled[-1] - settled[0] if settled else 0
    leaked = report.leaked_descriptors or report.leaked_processes or grown > _GROWTH_BYTES
    return bool(report.hung or report.surprises or report.crashes or leaked)


if __name__ == "__main__":
    typer.run(main)
