"""What thumbnails cost the decoder: processor time with and without them, in this process, frames alike.

    python -m tests.bench.thumbnails [--rounds N] [--video FILE ...]

Each round decodes a clip three times, in an order that rotates: without thumbnails, with 60, and without
again. The plan is the default model's: 8 frames a second, in windows of 2 s over the whole clip. The last
column compares the two without: it shows what the machine adds by itself. Medians over rounds, with the
bounds of their 95 % intervals.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from tests.bench.costs import median_interval
from tests.bench.footage import SHORT_360P, SHORT_1080P, Clip, rendered
from tests.support.preprocessing import preprocessing
from tests.support.videos import decode_limits, open_source
from tubelet.service.decode.frames.decoder import Job, decode
from tubelet.service.decode.probe.probe import probe
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import MAX_THUMBNAILS, NS_PER_S, DecodeSummary

_CLIPS = (SHORT_360P, SHORT_1080P, Clip("3 min 360p", 640, 360, 800, 250, shots=9, repeats=4))
_SIZE = 112  # of the default model


class _OneSlot:
    """Memory for one unit, which is written again and again."""

    def __init__(self) -> None:
        self._unit = np.empty((2, _SIZE, _SIZE, 3), np.uint8)

    def acquire(self) -> tuple[int, np.ndarray]:
        return 0, self._unit

    def announce(self, grid: int, unit: int, slot: int) -> None:
        """Nobody reads the unit."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One decoding: its processor time and its result."""

    cpu_s: float
    end: DecodeSummary


def _run(path: Path, thumbnails: int) -> _Run:
    """Decode a clip with at most ``thumbnails``; the probe is not counted."""
    source, limits = open_source(path), decode_limits()
    track = probe(source, limits, _ignore)
    try:
        end_ns = track.metadata.duration_ns
        plan = Plan((SamplingGrid(0, end_ns, min(2 * NS_PER_S, end_ns), 2, 8, 4),))
        job = Job(source, track, plan, preprocessing(_SIZE, _SIZE, "crop"), False, limits, thumbnails)
        start_s = time.process_time()
        end = decode(job, _OneSlot(), _ignore)
        return _Run(time.process_time() - start_s, end)
    finally:
        track.close()
        source.close()


def _ignore() -> None:
    """Take a sign of progress."""


def _measure(path: Path, rounds: int) -> tuple[str, ...]:
    """Return the cells of a clip's row."""
    kinds = {"without": 0, "with": MAX_THUMBNAILS, "again": 0}
    runs: dict[str, list[_Run]] = {kind: [] for kind in kinds}
    for number in kinds.values():
        _run(path, number)
    for round_ in range(rounds):
        order = list(kinds)
        for kind in order[round_ % 3 :] + order[: round_ % 3]:
            runs[kind].append(_run(path, kinds[kind]))
    plain = [run.cpu_s for run in runs["without"]]
    added = [run.cpu_s - one for run, one in zip(runs["with"], plain, strict=True)]
    thumbnails = runs["with"][0].end.thumbnails
    return (
        f"{median_interval(plain)[0] * 1000:.0f}",
        _interval([seconds * 1000 for seconds in added], ".1f"),
        _interval([run.cpu_s / one for run, one in zip(runs["with"], plain, strict=True)], ".3f"),
        _interval([run.cpu_s / one for run, one in zip(runs["again"], plain, strict=True)], ".3f"),
        f"{len(thumbnails)}, {sum(len(each.jpeg) for each in thumbnails) / 1000:.0f} kB",
    )


def _interval(values: list[float], form: str) -> str:
    """Format the median of ``values`` and its interval."""
    middle, low, high = median_interval(values)
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def main(
    rounds: Annotated[int, typer.Option(min=6)] = 15,
    video: Annotated[
        list[Path] | None, typer.Option(help="Clips to decode instead of rendered ones.")
    ] = None,
) -> None:
    paths = {path.name: path for path in video or ()} or {clip.name: rendered(clip) for clip in _CLIPS}
    shown = Table("clip", "decode, ms", "thumbnails add, ms", "with/without", "without/without", "thumbnails")
    for name, path in paths.items():
        shown.add_row(name, *_measure(path, rounds))
    Console(width=140).print(shown)


if __name__ == "__main__":
    typer.run(main)
