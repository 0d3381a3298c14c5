"""The command line to train, measure and publish an embedded model."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any

import torch
import typer
from torch.utils.data import DataLoader

from tubelet.models.families.factorised import Factorised
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.spec import Family
from tubelet.models.training import moving_objects
from tubelet.models.training.card import Figures, spec_and_card
from tubelet.models.training.init import drifting_gratings_, sine_positions_
from tubelet.models.training.losses import FlowHeads
from tubelet.models.training.recipes import PATCH, PREPROCESSING, SEED, TASKS, Task
from tubelet.models.training.samples import make_batches
from tubelet.models.training.simulation.camera_path import LABELS
from tubelet.models.training.simulation.dataset import SimulatedMoves
from tubelet.models.training.simulation.screens import draw_screens
from tubelet.models.training.study.design import Design, with_sizes
from tubelet.models.training.trainer import Recipe, Trainable, Trainer, confusion
from tubelet.service.cli.errors import report_errors
from tubelet.service.cli.evaluation.dataset import read_labelled, with_model_labels
from tubelet.service.cli.training.feed import plan_windows, read_samples
from tubelet.service.cli.training.sources import load_sources
from tubelet.service.cli.training.study import run_study, usable_cores
from tubelet.service.config.config import load_config

WINDOWS_S = (1.0, 2.0, 4.0)  # lengths of windows to evaluate, seconds
TEST_SEED = SEED + 1
TEST_BATCHES = 63  # batches of windows to evaluate

app = typer.Typer(no_args_is_help=True, add_completion=False)
_Folder = partial(typer.Option, exists=True, file_okay=False)
Videos = Annotated[Path, _Folder(help="folder of clips to simulate camera moves over")]
Runs = Annotated[Path, typer.Option(file_okay=False, help="folder for decoded sources, checkpoints, figures")]


def _trainable(family: Family) -> Family:
    """Refuse a --family that has no recipe."""
    if family not in TASKS:
        raise typer.BadParameter(f"{family!r} has no recipe; these have: {', '.join(TASKS)}")
    return family


def _explained(family: Family) -> Family:
    """Refuse a --family whose explanations are not tested."""
    if family not in moving_objects.DIMS:
        raise typer.BadParameter(f"{family!r} has no recipe; these have: {', '.join(moving_objects.DIMS)}")
    return family


FamilyOption = Annotated[Family, typer.Option(callback=_trainable, help="which family of model")]


@app.command("camera-motion")
@report_errors()
def train(
    videos: Videos,
    family: FamilyOption = "factorised",
    runs: Runs = Path("runs"),
    steps: Annotated[int | None, typer.Option(min=1, help="optimiser steps, instead of the recipe's")] = None,
    start_from: Annotated[
        Path | None,
        _Folder(help="model store with a model that went through all legs of the recipe but the last"),
    ] = None,
) -> None:
    """Train a camera-motion model; an interrupted run resumes from its last checkpoint."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    task = TASKS[family]
    folder = runs / task.name
    folder.mkdir(parents=True, exist_ok=True)
    recipe = task.recipe if steps is None else replace(task.recipe, steps=steps)
    trainer = _trainer(task, recipe)
    if (folder / "checkpoint.pt").is_file():
        _resume(trainer, folder / "checkpoint.pt")
        typer.echo(f"resuming from step {trainer.step} of {recipe.steps}, from {folder / 'checkpoint.pt'}")
    elif start_from is not None:
        trainer.start_last_leg(ModelStore(start_from).find(task.name).load().state_dict())
    moves = SimulatedMoves(
        load_sources(videos, runs / "sources", load_config().decode, test=False)
        + draw_screens(task.screens, SEED),
        task.sampling,
        PREPROCESSING.width,
        seed=SEED,
        batches=recipe.steps,
        batch_size=recipe.batch_size,
        foreground=task.foreground,
    )
    batches = DataLoader(moves, batch_size=None, sampler=range(trainer.step, recipe.steps), num_workers=1)
    trainer.fit(batches, folder / "checkpoint.pt", folder / "log.tsv")
    typer.echo(f"trained up to step {trainer.step}, in {folder / 'checkpoint.pt'}: evaluate it next")


@app.command("moving-objects")
@report_errors()
def train_moving_objects(
    family: Annotated[Family, typer.Option(callback=_explained, help="which family of model")] = "factorised",
    runs: Runs = Path("runs"),
    steps: Annotated[int, typer.Option(min=1, help="optimiser steps")] = moving_objects.RECIPE.steps,
) -> None:
    """Train a small model to test explanations on; an interrupted run resumes from its last checkpoint."""
    torch.set_num_threads(1)
    folder = runs / moving_objects.spec_of(family).name
    folder.mkdir(parents=True, exist_ok=True)
    recipe = replace(moving_objects.RECIPE, steps=steps)
    trainer = moving_objects.start(family, recipe)
    if (folder / "checkpoint.pt").is_file():
        _resume(trainer, folder / "checkpoint.pt")
        typer.echo(f"resuming from step {trainer.step} of {steps}, from {folder / 'checkpoint.pt'}")
    batches = moving_objects.batches(family, recipe)
    remaining = DataLoader(batches, batch_size=None, sampler=range(trainer.step, steps))
    trainer.fit(remaining, folder / "checkpoint.pt", folder / "log.tsv")
    typer.echo(f"trained up to step {trainer.step}, in {folder / 'checkpoint.pt'}")


@app.command()
def study(
    videos: Videos,
    out: Annotated[Path, typer.Option(file_okay=False, help="folder for all that the study writes")] = Path(
        "runs/study"
    ),
    steps: Annotated[int, typer.Option(min=1, help="optimiser steps of each run")] = Design().steps,
    size: Annotated[
        list[int] | None, typer.Option(min=1, help="number of training windows; may be repeated")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="runs at a time, one core each; default: all cores")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print an object for each run that ends")] = False,
) -> None:
    """Measure accuracy by the number of training windows, of a CNN and of transformers; resumes."""
    torch.set_num_threads(1)
    design = replace(Design(), steps=steps)
    with report_errors(as_json=as_json):
        run_study(
            videos,
            out,
            with_sizes(design, tuple(size)) if size else design,
            workers or usable_cores(),
            as_json=as_json,
        )


@app.command()
@report_errors()
def evaluate(
    videos: Videos,
    clips: Annotated[Path, _Folder(help="folder that tests/bench/camera_moves.py has written")],
    family: FamilyOption = "factorised",
    runs: Runs = Path("runs"),
) -> None:
    """Measure a trained model on held-out scenes, with simulated moves and moves rendered by ffmpeg."""
    torch.set_num_threads(1)
    task, config = TASKS[family], load_config().decode
    model = _trained(task, runs).average
    moves = SimulatedMoves(
        load_sources(videos, runs / "sources", config, test=True),
        task.sampling,
        PREPROCESSING.width,
        seed=TEST_SEED,
        batches=TEST_BATCHES,
    )
    figures = {"simulated": confusion(model, DataLoader(moves, batch_size=None), len(LABELS)).tolist()}
    rendered = with_model_labels(read_labelled(clips / "labels.csv"), task.name, LABELS)
    for window_s in WINDOWS_S:
        planned = partial(plan_windows, task.sampling, PREPROCESSING, window_s)
        batches = make_batches(read_samples(rendered, planned, config), LABELS, moves.batch_size)
        figures[f"{window_s:g}"] = confusion(model, batches, len(LABELS)).tolist()
    (runs / task.name / "figures.json").write_text(json.dumps(figures))
    for name, counts in figures.items():
        measured = Figures(counts)
        typer.echo(f"{task.name} {name}: {measured.top1:.4f}, worst {min(measured.recalls):.3f}")


@app.command()
def publish(
    family: FamilyOption = "factorised",
    runs: Runs = Path("runs"),
    version: Annotated[str, typer.Option(help="of the model")] = "1.0.0",
    zoo: Annotated[Path, typer.Option(file_okay=False, help="model store to write to")] = ZOO,
) -> None:
    """Write a trained and measured model into the zoo, with its card."""
    task = TASKS[family]
    trainer = _trained(task, runs)
    measured = {}
    for other in TASKS.values():
        file = runs / other.name / "figures.json"
        if file.is_file():
            measured[other.name] = {name: Figures(c) for name, c in json.loads(file.read_text()).items()}
    if task.name not in measured:
        raise typer.BadParameter(f"{task.name} has not been measured in {runs}: evaluate it first")
    try:
        spec, card = spec_and_card(task, version, trainer, measured)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    write_folder(zoo / spec.name, spec, task.dims, trainer.average, card)
    typer.echo(zoo / spec.name)


def _trainer(task: Task, recipe: Recipe) -> Trainer[Trainable]:
    """Build a trainer with an initialised model."""
    model, t = task.build(), task.sampling.frames_per_unit
    rows, columns = PREPROCESSING.height // PATCH, PREPROCESSING.width // PATCH
    sine_positions_(model.spatial, rows, columns)
    if isinstance(model, Factorised):
        sine_positions_(model.temporal, 1, task.sampling.units_per_window)
    if t == 1:
        return Trainer(model, None, recipe)
    drifting_gratings_(model.patch_embed.proj, t, torch.Generator().manual_seed(SEED))
    return Trainer(model, FlowHeads(task.dims.embed_dim, t, rows, columns), recipe)


def _resume(trainer: Trainer[Any], checkpoint: Path) -> None:
    """Restore a trainer from a checkpoint; a damaged one is an error of the command line."""
    try:
        trainer.resume(checkpoint)
    except (RuntimeError, KeyError, UnpicklingError) as error:
        raise typer.BadParameter(f"{checkpoint} is damaged, or of another recipe: remove it") from error


def _trained(task: Task, runs: Path) -> Trainer[Trainable]:
    """Return the trainer of a run's last checkpoint."""
    checkpoint = runs / task.name / "checkpoint.pt"
    if not checkpoint.is_file():
        raise typer.BadParameter(f"there is no {checkpoint}: {task.name} has not been trained in {runs}")
    trainer = _trainer(task, task.recipe)
    _resume(trainer, checkpoint)
    return trainer


if __name__ == "__main__":
    app()
