"""Measures whether explanations are true: what they show, beside what decides.

    python -m tubelet.service.cli.training moving-objects --family FAMILY      # for each family, minutes
    python -m tests.bench.faithful objects [--runs DIR] [--clips N]
    python -m tests.bench.faithful moves --videos ../shared/videos [--runs DIR] [--clips N]
    python -m tests.bench.faithful real --videos ../shared/videos/real [--clips N]

*objects*: models trained by the first command, on clips of ``models/training/simulation/moving_objects.py``.
Four objects move as much as each other; the manner of one, in one span of four frames, is the label.
*moves*: camera-motion, on clips of held-out scenes in which the camera moves in a known part of the window
and stands still otherwise, while an object passes by.
*real*: the embedded models, on the middle of one clip of each scene.

Clips that a model gets wrong do not count, where the truth is known. For each method, beside motion energy
(differences of frames), a centre prior and chance:

- mass: the share of the map in the right place and time; then that in the right time, and in the right place
- pointing: how often the map's maximum is in the right place and time
- deletion, insertion: the label's probability while the map's patches, the highest first, are replaced by the
  temporal median, or put into it, averaged over the way; low and high is good; "- random" and "- energy" are
  differences, clip by clip, from the order of chance and that of motion energy
- occlusion: Spearman's correlation with the map of occlusion
- random weights: Spearman's correlation with the map of the model whose head, then also the last half of the
  blocks, then all blocks have random weights (Adebayo et al., arXiv 1810.03292); low is good

Intervals are 95 %, by bootstrap over clips.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from tests.bench.faithful import camera_moves, moving_objects, real_clips
from tubelet.models.training.moving_objects import DIMS, spec_of

app = typer.Typer(no_args_is_help=True, add_completion=False)
Videos = Annotated[Path, typer.Option(exists=True, file_okay=False)]
Runs = Annotated[Path, typer.Option(help="folder with trained models, and with decoded sources")]
NumClips = Annotated[int, typer.Option("--clips", min=2)]


@app.command()
def objects(runs: Runs = Path("runs"), clips: NumClips = 24) -> None:
    """Compare with the place and time of the object that decides."""
    console = _start()
    for family in DIMS:
        if not (runs / spec_of(family).name / "checkpoint.pt").is_file():
            console.print(f"{family}: not trained in {runs}, left out")
            continue
        for table in moving_objects.tables(family, runs, clips):
            console.print(table)


@app.command()
def moves(videos: Videos, runs: Runs = Path("runs"), clips: NumClips = 60) -> None:
    """Compare with the time in which the camera moves."""
    console = _start()
    for table in camera_moves.tables(videos, runs, clips):
        console.print(table)


@app.command()
def real(videos: Videos, clips: NumClips = 20) -> None:
    """Compare with what the answers of the embedded models hang on."""
    console = _start()
    for table in real_clips.tables(videos, clips):
        console.print(table)


def _start() -> Console:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    return Console(width=180)


if __name__ == "__main__":
    app()
