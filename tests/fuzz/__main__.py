"""Fuzz by hand: broken videos, calls and files, made from seeds.

    python -m tests.fuzz videos ../shared/videos/odd [--inputs 20000] [--first 0]
    python -m tests.fuzz calls messages              # or tokens, or headers
    python -m tests.fuzz files

``videos``: mutants of every clip of up to 200 kB below the folder go through the real pool of workers.
``calls``: a real server answers calls with wrong messages, wrong tokens or odd headers and sound ones.
``files``: certificates, keys, authorities, identities and keys of an issuer are read.

Each prints its outcomes, what was wrong by seed, leaks, and the course of memory, and exits with 1 if any is
bad.
"""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from tests.fuzz.call_inputs import Kind
from tests.fuzz.calls import fuzzed, run_calls
from tests.fuzz.files import run_files
from tests.fuzz.videos import run_campaign

_LARGEST_BYTES = 200_000  # larger clips take long to decode and break in the same places
_GROWTH_BYTES = 64 << 20  # of the server, once it is warm
_MOST_SHOWN = 40

app = typer.Typer(add_completion=False, no_args_is_help=True)
out = Console(highlight=False)

Inputs = Annotated[int, typer.Option(min=1, help="How many.")]
First = Annotated[int, typer.Option(help="The first seed.")]


@app.command()
def videos(folder: Path, inputs: Inputs = 20_000, first: First = 0) -> None:
    """Decode broken videos."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    clips = [path.read_bytes() for path in found if 0 < path.stat().st_size <= _LARGEST_BYTES]
    workers = len(os.sched_getaffinity(0))
    with _bar(f"mutants of {len(clips)} clips", inputs) as advance:
        report = asyncio.run(run_campaign(clips, range(first, first + inputs), workers, advance))
    wrong = dict.fromkeys(report.hung, "hung") | report.surprises | report.crashes
    _show(report.outcomes, wrong, report.rss_bytes)
    out.print(f"worker failures: {dict(report.failures) or 'none'}")
    out.print(f"slowest: {report.slowest_s:.1f} s, seed {report.slowest_seed}")
    leaked = {"descriptors": report.leaked_descriptors, "processes": report.leaked_processes}
    _end(wrong, leaked, report.rss_bytes[4:])


@app.command()
def calls(kind: Kind, inputs: Inputs = 10_000, first: First = 0) -> None:
    """Make calls with something wrong."""
    with (
        tempfile.TemporaryDirectory() as folder,
        fuzzed(Path(folder)) as server,
        _bar(f"calls with wrong {kind}", inputs) as advance,
    ):
        report = run_calls(server, kind, range(first, first + inputs), advance)
    wrong = dict(report.wrong)
    _show(report.outcomes, wrong, report.rss_bytes)
    out.print(f"lines of the log: {report.lines}, wrong: {len(report.log)}")
    for problem in report.log[:_MOST_SHOWN]:
        out.print(f"  {problem}", markup=False)
    leaked = {"descriptors": report.leaked_descriptors, "threads": report.leaked_threads}
    _end({**wrong, **dict(enumerate(report.log))}, leaked, report.settled_bytes)


@app.command()
def files(inputs: Inputs = 10_000, first: First = 0) -> None:
    """Read broken files of certificates, keys and identities."""
    with tempfile.TemporaryDirectory() as folder, _bar("files", inputs) as advance:
        report = run_files(Path(folder), range(first, first + inputs), advance)
    _show(report.outcomes, report.wrong, report.rss_bytes)
    _end(report.wrong, {"descriptors": report.leaked_descriptors}, report.rss_bytes[4:])


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show progress; yield the function that says that one more is done."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)


def _show(outcomes: Counter[str], wrong: Mapping[int, str], rss_bytes: Sequence[int]) -> None:
    """Print the outcomes, what was wrong, and the memory now and then."""
    out.print(f"{outcomes.total()} inputs")
    for outcome, number in outcomes.most_common():
        out.print(f"  {number:7} {outcome}")
    now_and_then = rss_bytes[:: max(1, len(rss_bytes) // 10)]
    out.print(f"memory, MiB: {[rss >> 20 for rss in now_and_then]}")
    for seed, error in list(wrong.items())[:_MOST_SHOWN]:
        out.print(f"seed {seed}: {error}", markup=False)


def _end(wrong: Mapping[int, str], leaked: Mapping[str, int], rss_bytes: Sequence[int]) -> None:
    """Print what leaked, and exit: with 1 if anything was wrong."""
    grown = rss_bytes[-1] - rss_bytes[0] if rss_bytes else 0
    out.print(f"leaked: {dict(leaked)}; memory grew by {grown >> 20} MiB")
    is_leak = grown > _GROWTH_BYTES or any(number > 0 for number in leaked.values())
    raise typer.Exit(1 if wrong or is_leak else 0)


if __name__ == "__main__":
    app()
