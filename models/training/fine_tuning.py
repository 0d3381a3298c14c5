"""Training on labelled clips, epoch by epoch: early stopping, the best and the last state, exact resuming.

All that is random is a function of the seed and the number of the step, so a run that is resumed ends with
the same weights as one that was never interrupted, on the same CPU and with as many threads.
"""

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from tubelet.models.training.processes import any_process, from_first, rank, share_statistics_
from tubelet.models.training.samples import Batch
from tubelet.models.training.trainer import Diverged, Trainer, save_atomically

BEST, LAST = "best.pt", "last.pt"
SAVE_S = 60.0
"""Seconds of training between two checkpoints within an epoch."""
MEASURED_S = 60.0
"""Seconds of training after which the number of epochs is fixed; a quarter of the budget, if that is less."""
STUCK = 0.97
"""Share of ln K above which the loss says that nothing is learned."""
_STUCK_EPOCHS = 3


class Feed(Protocol):
    """The training clips: an epoch has ``steps`` batches, which its number alone decides."""

    @property
    def steps(self) -> int: ...

    @property
    def clips(self) -> int: ...

    def batches(self, epoch: int, first: int) -> Generator[Batch]:
        """Yield the batches of an epoch from number ``first`` on."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """When training ends: after ``epochs``, or as many of them as fit into ``budget_s``.

    It ends early if ``patience`` epochs bring no smaller loss on the validation clips.
    """

    epochs: int
    budget_s: float | None
    patience: int


@dataclass(frozen=True, slots=True)
class EpochFigures:
    """The figures of one epoch: of the training's batches, and of the validation clips."""

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    clips_per_s: float


@dataclass(slots=True)
class Progress:
    """Where a run is: its complete epochs, the batches of the next one so far, and what was measured.

    ``loss`` and ``right`` are sums over the ``clips`` of the batches. After ``best_epoch`` epochs, 0 for the
    start, the loss on the validation clips was smallest.
    """

    epoch: int = 0
    batches: int = 0
    clips: int = 0
    loss: float = 0.0
    right: float = 0.0
    epochs: int | None = None  # None: not yet fixed
    best_epoch: int = 0
    best_loss: float = math.inf
    diverged: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def figures(self) -> list[EpochFigures]:
        """The figures of all complete epochs."""
        return [EpochFigures(**each) for each in self.history]


class Interrupted(Exception):
    """Training was asked to stop, and its state is in the checkpoint."""


class Watch(Protocol):
    """Who is told how the training goes."""

    def on_step(self, progress: Progress, steps: int, clips_per_s: float) -> None: ...

    def on_epoch(self, figures: EpochFigures, progress: Progress) -> None: ...

    def should_stop(self) -> bool: ...


class FineTuning:
    """A run of training: ``trainer`` on batches of ``feed``, measured by ``validate``, kept in ``folder``.

    ``validate`` returns the loss and the accuracy of a model on the validation clips.
    """

    def __init__(
        self,
        trainer: Trainer[Any],
        feed: Feed,
        validate: Callable[[nn.Module], tuple[float, float]],
        limits: Limits,
        folder: Path,
        watch: Watch,
    ) -> None:
        self.trainer, self.feed, self.validate = trainer, feed, validate
        self.limits, self.folder, self.watch = limits, folder, watch
        self.progress = Progress(epochs=limits.epochs if limits.budget_s is None else None)
        self._spent_s = self._saved_s = 0.0
        self._own_batches = 0

    def resume(self) -> None:
        """Take over the last checkpoint, if there is one.

        Raises:
            RuntimeError, KeyError, pickle.UnpicklingError: it is damaged.
        """
        if (file := self.folder / LAST).is_file():
            state = torch.load(file, weights_only=True)
            self.trainer.restore(state["trainer"])
            self.progress = Progress(**state["progress"])

    @property
    def clips_per_s(self) -> float:
        """The speed since the run was started or resumed, validation included."""
        return self._own_batches * self.feed.clips / self.feed.steps / max(self._spent_s, 1e-9)

    def run(self) -> Progress:
        """Train to the end, and leave the best weights in ``trainer.average``.

        Raises:
            Interrupted: ``watch`` asked to stop; the checkpoint has all that is needed to resume.
            Diverged: the loss is not finite before any epoch made the model better.
        """
        self._set_steps()
        if self.progress.best_loss == math.inf:
            self._keep_if_best(self._validate()[0])
        try:
            while not self._is_over():
                self._train_epoch()
        except Diverged as error:
            if not self.progress.best_epoch:
                raise
            self.progress.diverged = str(error)
        self.trainer.average.load_state_dict(torch.load(self.folder / BEST, weights_only=True))
        return self.progress

    def _is_over(self) -> bool:
        progress = self.progress
        limit = self.limits.epochs if progress.epochs is None else progress.epochs
        return progress.epoch >= limit or progress.epoch - progress.best_epoch >= self.limits.patience

    def _train_epoch(self) -> None:
        """Train on the batches of the present epoch that are left, then measure."""
        progress = self.progress
        with closing(self.feed.batches(progress.epoch, progress.batches)) as batches:
            started = time.monotonic()
            for batch in batches:
                self._train_step(batch)
                self._spent_s, started = self._spent_s + time.monotonic() - started, time.monotonic()
                self._fix_epochs()
                self.watch.on_step(progress, self.feed.steps, self.clips_per_s)
                if any_process(self.watch.should_stop()):
                    self._save()
                    raise Interrupted
                if self._spent_s - self._saved_s > SAVE_S:
                    self._save()
        self._end_epoch()

    def _train_step(self, batch: Batch) -> None:
        """Train on one batch, and add its figures to those of the epoch."""
        progress = self.progress
        torch.manual_seed(self.trainer.step)  # dropout of the families that have it draws from it
        loss, _, right = self.trainer.train_step(batch)
        count = batch.total or len(batch.labels)
        progress.batches += 1
        progress.clips += count
        progress.loss += loss * count
        progress.right += right * count
        self._own_batches += 1

    def _end_epoch(self) -> None:
        """Measure the average on the validation clips, and keep it if it is the best one so far."""
        progress, started = self.progress, time.monotonic()
        loss, accuracy = self._validate()
        self._spent_s += time.monotonic() - started
        count = max(1, progress.clips)
        figures = EpochFigures(
            progress.epoch + 1,
            progress.loss / count,
            progress.right / count,
            loss,
            accuracy,
            self.clips_per_s,
        )
        progress.history.append(asdict(figures))
        progress.epoch += 1
        progress.batches, progress.clips, progress.loss, progress.right = 0, 0, 0.0, 0.0
        self._keep_if_best(loss)
        self._fix_epochs()
        self._save()
        self.watch.on_epoch(figures, progress)

    def _validate(self) -> tuple[float, float]:
        """Return the loss and the accuracy of the average, the same in all processes."""
        share_statistics_(self.trainer.average)
        loss, accuracy = self.validate(self.trainer.average)
        return from_first(loss), from_first(accuracy)

    def _keep_if_best(self, loss: float) -> None:
        """Write the weights of the average if their loss is the smallest one so far."""
        if loss < self.progress.best_loss:
            self.progress.best_loss, self.progress.best_epoch = loss, self.progress.epoch
            if rank() == 0:
                save_atomically(self.trainer.average.state_dict(), self.folder / BEST)

    def _fix_epochs(self) -> None:
        """Fix the number of epochs once it is known how long one takes; the learning rate follows it."""
        progress, budget_s = self.progress, self.limits.budget_s
        if progress.epochs is None and budget_s is not None:
            spent_s = from_first(self._spent_s)
            if spent_s < min(MEASURED_S, budget_s / 4):
                return
            steps = self._own_batches * budget_s / spent_s
            progress.epochs = max(1, min(self.limits.epochs, int(steps / self.feed.steps)))
            progress.epochs = max(progress.epochs, progress.epoch + (progress.batches > 0))
        self._set_steps()

    def _set_steps(self) -> None:
        """Tell the learning rate's schedule the number of steps."""
        epochs = self.progress.epochs or self.limits.epochs
        self.trainer.recipe = replace(self.trainer.recipe, steps=epochs * self.feed.steps)

    def _save(self) -> None:
        """Write the checkpoint; only process 0 does."""
        self._saved_s = self._spent_s
        if rank() == 0:
            state = {"trainer": self.trainer.state(), "progress": asdict(self.progress)}
            save_atomically(state, self.folder / LAST)


def seed_of(*numbers: int) -> int:
    """Return a seed that depends on all ``numbers``."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def is_stuck(progress: Progress, num_classes: int) -> bool:
    """Return whether the loss stayed at ln K, that of a guess, in the last epochs."""
    last = progress.figures[-_STUCK_EPOCHS:]
    return len(last) == _STUCK_EPOCHS and min(each.loss for each in last) >= STUCK * math.log(num_classes)
