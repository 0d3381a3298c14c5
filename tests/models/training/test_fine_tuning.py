"""Runs of training: exact resuming, the best epoch, limits, losses that are not finite."""

import math
import resource
import signal
from collections.abc import Generator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
import torch
from torch import nn

from tubelet.models.training.augmentation import make_targets, mix_
from tubelet.models.training.fine_tuning import (
    BEST,
    LAST,
    EpochFigures,
    FineTuning,
    Interrupted,
    Limits,
    Progress,
    is_stuck,
    seed_of,
)
from tubelet.models.training.layer_rates import parameter_groups
from tubelet.models.training.samples import Batch
from tubelet.models.training.trainer import Diverged, Recipe, Trainer, save_atomically

CLIPS, WIDTH, SIZE = 22, 8, 4
RECIPE = Recipe(steps=1, batch_size=SIZE, learning_rate=0.02, warmup_steps=3, dtype=torch.float32)


class Points:
    """Points of two classes, in batches that the epoch's number decides; one epoch may have a NaN."""

    clips, steps = CLIPS, -(-CLIPS // SIZE)

    def __init__(self, spoilt_epoch: int | None = None) -> None:
        torch.manual_seed(1)
        self.labels = torch.arange(CLIPS) % 2
        self.points = torch.randn(CLIPS, WIDTH) + self.labels[:, None]
        self.spoilt_epoch = spoilt_epoch

    def batches(self, epoch: int, first: int) -> Generator[Batch]:
        order = torch.randperm(CLIPS, generator=torch.Generator().manual_seed(epoch))
        for step in range(first, self.steps):
            own = order[step * SIZE : (step + 1) * SIZE]
            units = self.points[own].clone()
            if epoch == self.spoilt_epoch and step == 2:
                units[0, 0] = math.nan
            targets = make_targets(self.labels[own], torch.ones(2))
            yield mix_(Batch(units, self.labels[own], targets=targets), seed_of(epoch, step))

    def validate(self, model: nn.Module) -> tuple[float, float]:
        with torch.no_grad():
            logits = model(self.points)
        loss = nn.functional.cross_entropy(logits, self.labels).item()
        return loss, (logits.argmax(dim=1) == self.labels).float().mean().item()


class Silent:
    """Stops a run after so many steps, and remembers the epochs."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.left, self.epochs = stop_after, list[EpochFigures]()

    def on_step(self, progress: Progress, steps: int, clips_per_s: float) -> None:
        self.left -= 1

    def on_epoch(self, figures: EpochFigures, progress: Progress) -> None:
        self.epochs.append(figures)

    def should_stop(self) -> bool:
        return self.left <= 0


def start(
    folder: Path, watch: Silent, points: Points | None = None, limits: Limits | None = None
) -> FineTuning:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(WIDTH, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 2)
    )
    points = points or Points()
    trainer: Trainer[Any] = Trainer(model, None, RECIPE)
    return FineTuning(trainer, points, points.validate, limits or Limits(4, None, 99), folder, watch)


@pytest.mark.parametrize("stop_after", [1, 6, 8, 15, 23])
def test_a_resumed_run_ends_as_one_that_was_never_stopped(stop_after: int, tmp_path: Path) -> None:
    whole = start(tmp_path / "whole", Silent())
    wanted = whole.run()
    stopped = start(tmp_path / "part", Silent(stop_after))
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = start(tmp_path / "part", Silent())
    resumed.resume()
    assert 6 * resumed.progress.epoch + resumed.progress.batches == stop_after
    found = resumed.run()
    for name, value in whole.trainer.state()["trained"].items():
        assert torch.equal(resumed.trainer.state()["trained"][name], value), name
    for name, value in whole.trainer.average.state_dict().items():
        assert torch.equal(resumed.trainer.average.state_dict()[name], value), name
    assert (found.best_epoch, found.best_loss) == (wanted.best_epoch, wanted.best_loss)
    assert [each["loss"] for each in found.history] == [each["loss"] for each in wanted.history]


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    watch = Silent()
    run = start(tmp_path / "run", watch)
    progress = run.run()
    losses = [each.validation_loss for each in watch.epochs]
    assert progress.best_loss == min(losses)
    assert progress.best_epoch == 1 + losses.index(min(losses))
    assert Points().validate(run.trainer.average)[0] == pytest.approx(progress.best_loss)
    assert {file.name for file in (tmp_path / "run").iterdir()} == {BEST, LAST}


def test_a_run_ends_when_epochs_bring_nothing(tmp_path: Path) -> None:
    run = start(tmp_path / "run", Silent(), limits=Limits(50, None, 2))
    losses = iter([1.0, 0.9, 0.8, 0.85, 0.95])
    run.validate = lambda model: (next(losses), 0.5)
    progress = run.run()
    assert (progress.epoch, progress.best_epoch) == (4, 2)


def test_a_loss_that_is_not_finite_ends_with_the_last_good_weights(tmp_path: Path) -> None:
    run = start(tmp_path / "run", Silent(), Points(spoilt_epoch=2))
    progress = run.run()
    assert progress.diverged == "the loss of step 15 is not a finite number"
    assert progress.epoch == 2
    assert Points().validate(run.trainer.average)[0] == pytest.approx(progress.best_loss)
    with pytest.raises(Diverged):
        start(tmp_path / "other", Silent(), Points(spoilt_epoch=0)).run()


def test_epochs_follow_from_a_budget_and_are_then_fixed(tmp_path: Path) -> None:
    watch = Silent()
    run = start(tmp_path / "run", watch, limits=Limits(10_000, 1.0, 10_000))
    progress = run.run()
    assert progress.epochs == progress.epoch == len(watch.epochs)
    assert 1 <= progress.epoch < 10_000
    assert run.trainer.recipe.steps == progress.epoch * Points.steps


def test_a_damaged_checkpoint_is_no_start(tmp_path: Path) -> None:
    run = start(tmp_path / "run", Silent())
    (tmp_path / "run" / LAST).write_bytes(b"PK damaged")
    with pytest.raises((RuntimeError, UnpicklingError)):
        run.resume()


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    run = start(tmp_path / "run", Silent(7))
    with pytest.raises(Interrupted):
        run.run()
    kept = (tmp_path / "run" / LAST).read_bytes()
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"the checkpoint .*last\.pt cannot be written; is the disk full\?"):
            save_atomically(run.trainer.state(), tmp_path / "run" / LAST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "run" / LAST).read_bytes() == kept
    assert {file.name for file in (tmp_path / "run").iterdir()} == {BEST, LAST}


def test_a_loss_at_that_of_a_guess_is_noticed() -> None:
    def history(loss: float) -> Progress:
        figures = {"accuracy": 0.5, "validation_loss": 1.0, "validation_accuracy": 0.5, "clips_per_s": 1.0}
        return Progress(history=[{"epoch": number, "loss": loss} | figures for number in range(4)])

    assert is_stuck(history(math.log(5)), 5)
    assert not is_stuck(history(0.9 * math.log(5)), 5)
    assert not is_stuck(Progress(), 5)


def test_early_layers_have_lower_rates() -> None:
    model = nn.ModuleList([nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))])
    groups = parameter_groups(model, 0.01)
    assert [group["share"] for group in groups] == pytest.approx([0.01, 0.01, 0.1, 0.1, 1, 1])
    assert [group.get("weight_decay") for group in groups] == [None, 0.0] * 3
    assert {id(each) for group in groups for each in group["params"]} == {
        id(each) for each in model.parameters()
    }
