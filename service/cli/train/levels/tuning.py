"""A run of gradient descent: from a model and its clips to the best epoch, calibrated and measured.

W windows, C clips, K classes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.models.errors import CannotTrain, TrainingDiverged, TrainingInterrupted
from tubelet.models.families.registry import Dims
from tubelet.models.training.augmentation import make_targets
from tubelet.models.training.calibration import fit_temperature
from tubelet.models.training.fine_tuning import Feed, FineTuning, Interrupted, Limits, Progress, is_stuck
from tubelet.models.training.losses import label_accuracy, label_loss, loss_weights
from tubelet.models.training.probe_fit import labels_by_clip, mean_by_clip
from tubelet.models.training.start import head_parameters
from tubelet.models.training.trainer import Diverged, Trainer
from tubelet.models.training.trainer import Recipe as Hyperparameters
from tubelet.models.video_model import VideoModel
from tubelet.service.cli.train.data.checked_clips import notes
from tubelet.service.cli.train.data.division import Division
from tubelet.service.cli.train.levels.run_folder import LOG
from tubelet.service.cli.train.levels.temperature import useful_temperature
from tubelet.service.cli.train.levels.watch import Measure, epoch_json, watch_training
from tubelet.service.cli.train.new_model import Answers, Level, Recipe, Trained
from tubelet.service.report.text import counted

SEED = 20261130
Logits = Callable[[nn.Module, Sequence[int]], tuple[Tensor, Tensor, Tensor]]
"""Computes the logits (W, K) of the windows of clips by their numbers, with their labels and clips, (W,).

Independent labels are (W, K).
"""


@dataclass(frozen=True, slots=True)
class Tuned:
    """The end of a run: the answers for the clips that are measured, and what to say of it."""

    temperature: float
    measured: Answers
    validated: Answers
    division: Division
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Run:
    """How a level is to train: its folder, how long, and whether windows may be mirrored.

    ``ends_s`` is the end of the time that the training may take, on the monotonic clock.
    """

    level: Level
    folder: Path
    epochs: int
    patience: int
    ends_s: float | None
    is_mirrored: bool
    is_resumed: bool

    @property
    def limits(self) -> Limits:
        """The limits of what is left to be done."""
        budget_s = None if self.ends_s is None else max(1.0, self.ends_s - time.monotonic())
        return Limits(self.epochs, budget_s, self.patience)


@dataclass(frozen=True, slots=True)
class Material:
    """What a level trains and measures on; ``logits`` also answers for clips that are not trained on."""

    division: Division
    feed: Feed
    logits: Logits
    num_classes: int
    is_multilabel: bool = False

    @property
    def measure(self) -> Measure:
        """What an epoch's accuracy is."""
        return "F1" if self.is_multilabel else "accuracy"


def tune(run: Run, material: Material, trainer: Trainer[Any], head: str) -> Tuned:
    """Train until the limits are reached; the best weights are left in ``trainer.average``.

    ``head`` says in words what is trained.

    Raises:
        TrainingInterrupted: the user stopped it.
        TrainingDiverged: the loss is not finite before any epoch made the model better.
        CannotTrain: the checkpoint is damaged.
    """
    division, feed, logits = material.division, material.feed, material.logits
    num_classes = material.num_classes

    def validate(model: nn.Module) -> tuple[float, float]:
        return _loss_and_accuracy(*logits(model, division.validation), num_classes)

    with watch_training(feed.clips, run.folder / LOG, material.measure) as watch:
        tuning = FineTuning(trainer, feed, validate, run.limits, run.folder, watch)
        if run.is_resumed:
            _resume(tuning, run.folder)
        try:
            progress = tuning.run()
        except Interrupted:
            raise TrainingInterrupted(
                f"interrupted in epoch {tuning.progress.epoch + 1}; what was done is kept in {run.folder}: "
                "the same command with --resume goes on"
            ) from None
        except Diverged as error:
            raise TrainingDiverged(
                f"{error}, and no epoch was better than the start: the model cannot be trained like this"
            ) from None
    validation = logits(trainer.average, division.validation)
    temperature, warnings = _temperature(*validation)
    measured = logits(trainer.average, division.measured)
    doubts = run_warnings(run, progress, num_classes, is_multilabel=material.is_multilabel)
    warnings = (*doubts, *warnings)
    recipe = _recipe(run, material, trainer.recipe, progress, head)
    measured, validated = (
        Answers(fitted / temperature, fitted, labels, clips)
        for fitted, labels, clips in (measured, validation)
    )
    return Tuned(temperature, measured, validated, division, replace(recipe, warnings=warnings))


def complete(
    tuned: Tuned, model: VideoModel, dims: Dims, labels: tuple[str, ...], used: tuple[int, ...]
) -> Trained:
    """Return what the level hands over: the temperature goes into the head of ``model``."""
    temperature = tuned.temperature
    measured, validated = tuned.measured, tuned.validated
    with torch.no_grad():
        if (parameters := head_parameters(model)) is None:
            temperature = 1.0
            measured, validated = (replace(each, calibrated=each.fitted) for each in (measured, validated))
        else:
            for parameter in parameters:
                parameter.div_(temperature)
    return Trained(
        model=model.eval(),
        dims=dims,
        labels=labels,
        used=used,
        temperature=temperature,
        recipe=tuned.recipe,
        held_out=measured,
        test=measured if tuned.division.has_test else None,
        validation=tuned.division.validation,
        validated=validated,
    )


def _temperature(fitted: Tensor, labels: Tensor, clips: Tensor) -> tuple[float, tuple[str, ...]]:
    """Fit a temperature to the validation clips; return it with warnings."""
    temperature = fit_temperature(fitted, labels)
    answers = Answers(fitted / temperature, fitted, labels, clips)
    applied, _, warnings = useful_temperature(temperature, answers)
    return applied, warnings


def _resume(tuning: FineTuning, folder: Path) -> None:
    """Take over the last checkpoint."""
    try:
        tuning.resume()
    except (RuntimeError, KeyError, TypeError, UnpicklingError) as error:
        raise CannotTrain(f"the checkpoint in {folder} is damaged: start anew with --replace") from error
    progress = tuning.progress
    notes.print(
        f"resumed after {counted(progress.epoch, 'epoch')} and {counted(progress.batches, 'step')}, "
        f"from {folder}"
    )


def _loss_and_accuracy(
    logits: Tensor, labels: Tensor, clips: Tensor, num_classes: int
) -> tuple[float, float]:
    """Return the balanced cross entropy and the accuracy of clips, of independent labels F1: (W, K), (W,)."""
    means, _ = mean_by_clip(logits, clips)
    truth = labels_by_clip(labels, clips)
    weights = loss_weights(truth, num_classes)
    if truth.ndim == 2:
        loss = label_loss(means, make_targets(truth, weights)).item()
    else:
        loss = (weights[truth].float() * F.cross_entropy(means, truth, reduction="none")).mean().item()
    return loss, label_accuracy(means, truth).item()


def run_warnings(run: Run, progress: Progress, num_classes: int, *, is_multilabel: bool) -> tuple[str, ...]:
    """Return what is suspicious about a run."""
    warnings = []
    if progress.diverged:
        warnings.append(
            f"{progress.diverged}: training stopped there; the model is that of epoch {progress.best_epoch}"
        )
    elif run.ends_s is not None and progress.epoch == 1 < run.epochs:
        warnings.append("the time was enough for one epoch alone: give more --minutes, or --epochs")
    count = 2 if is_multilabel else num_classes
    if is_stuck(progress, count):
        guess = "how frequent labels are" if is_multilabel else f"a guess among {count} labels"
        warnings.append(
            f"the loss stayed at that of {guess}, ln {count}: nothing was learned; look at the labels, give "
            "more clips, or another base"
        )
    return tuple(warnings)


def _recipe(run: Run, material: Material, recipe: Hyperparameters, progress: Progress, head: str) -> Recipe:
    """Describe how a run trained."""
    division = material.division
    epochs = counted(progress.epoch, "epoch")
    best = f"number {progress.best_epoch} was the best" if progress.best_epoch else "none beat the start"
    how = (
        f"{head}; AdamW with learning rate {recipe.learning_rate:g} and weight decay "
        f"{recipe.weight_decay:g}, {recipe.batch_size} clips a step, {epochs} of which "
        f"{best} on {len(division.validation)} validation clips"
    )
    details = {
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "history": [epoch_json(each, material.measure) for each in progress.figures],
        "out": str(run.folder),
        "train_clips": len(division.train),
        "validation_clips": len(division.validation),
    }
    return Recipe(run.level, how, division.measured_on, details)
