"""What people see of a training, and Ctrl-C, which ends it after the current step."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from tubelet.models.training.fine_tuning import EpochFigures, Progress
from tubelet.models.training.processes import rank
from tubelet.service.cli.train.data.checked_clips import notes
from tubelet.service.cli.train.levels.events import events_in

Measure = Literal["accuracy", "F1"]
"""What the accuracy of an epoch is: of independent labels, F1."""


class TrainingWatch:
    """Shows loss, accuracy, speed and time left; writes a line of JSON for each epoch to ``log``.

    ``add_event`` gets the figures of each epoch, too.
    """

    def __init__(
        self,
        bar: Bar,
        clips: int,
        log: Path,
        measure: Measure,
        add_event: Callable[[EpochFigures], None],
    ) -> None:
        self._bar, self._clips, self._log = bar, clips, log
        self._measure: Measure = measure
        self._add_event = add_event
        self._task: TaskID = bar.add_task("training", total=1.0)
        self._is_stopping = False

    def on_step(self, progress: Progress, steps: int, clips_per_s: float) -> None:
        share = progress.batches / steps
        total = progress.epochs or progress.epoch + 1
        loss, right = (each / max(1, progress.clips) for each in (progress.loss, progress.right))
        self._bar.update(
            self._task,
            completed=(progress.epoch + share) / total,
            description=f"epoch {progress.epoch + 1}{_of(progress)}: loss {loss:.3f}, "
            f"{self._measure} {right:.2f}, {clips_per_s:.1f} clips/s"
            f"{self._left(progress, share, clips_per_s)}",
        )

    def on_epoch(self, figures: EpochFigures, progress: Progress) -> None:
        notes.print(
            f"epoch {figures.epoch}{_of(progress)}: loss {figures.loss:.3f}, {self._measure} "
            f"{figures.accuracy:.2f}; validation loss {figures.validation_loss:.3f}, {self._measure} "
            f"{figures.validation_accuracy:.2f}; "
            f"{figures.clips_per_s:.1f} clips/s{self._left(progress, 0, figures.clips_per_s)}"
        )
        if rank() == 0:
            with self._log.open("a") as log:
                log.write(json.dumps(epoch_json(figures, self._measure)) + "\n")
            self._add_event(figures)

    def should_stop(self) -> bool:
        return self._is_stopping

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """End the training after the current step; asked a second time, at once."""
        if self._is_stopping:
            raise KeyboardInterrupt
        self._is_stopping = True
        notes.print("interrupted: the training stops after this step")

    def _left(self, progress: Progress, share: float, clips_per_s: float) -> str:
        """Format the time left, which is known once the number of epochs is fixed."""
        if progress.epochs is None:
            return ""
        left_s = max(0.0, progress.epochs - progress.epoch - share) * self._clips / max(clips_per_s, 1e-9)
        minutes, seconds = divmod(round(left_s), 60)
        return f", at most {minutes}:{seconds:02} left"


@contextmanager
def watch_training(clips: int, log: Path, measure: Measure) -> Iterator[TrainingWatch]:
    """Show a training of ``clips`` clips an epoch, and let Ctrl-C and SIGTERM end it after a step."""
    with (
        events_in(log.parent, measure) as add_event,
        Bar(BarColumn(), TextColumn("{task.description}"), console=notes, transient=True) as bar,
    ):
        watch = TrainingWatch(bar, clips, log, measure, add_event)
        before = {number: signal.signal(number, watch.stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield watch
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def epoch_json(figures: EpochFigures, measure: Measure) -> dict[str, Any]:
    """Return the object of an epoch; its accuracy has the name of what it is, null is no finite number."""
    return {
        name.replace("accuracy", measure.lower()): value if isfinite(value) else None
        for name, value in asdict(figures).items()
    }


def _of(progress: Progress) -> str:
    """Format the number of epochs, if it is fixed."""
    return "" if progress.epochs is None else f" of {progress.epochs}"
