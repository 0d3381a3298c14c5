"""How long a level trains, and in which folder: chosen by tubelet, or by options."""

from pathlib import Path
from typing import NamedTuple

from tubelet.models.training.augmentation import labels_with_direction
from tubelet.service.cli.train.base import base_text
from tubelet.service.cli.train.data.checked_clips import notes
from tubelet.service.cli.train.levels.run_folder import data_digest, default_folder, open_run
from tubelet.service.cli.train.levels.tuning import Run
from tubelet.service.cli.train.new_model import Level, Request
from tubelet.service.cli.train.prepare import Prepared
from tubelet.service.report.text import counted

_MOST_NAMED = 5  # labels in a note


class Schedule(NamedTuple):
    """The defaults of a level: the most epochs, the most minutes, and how many epochs may bring nothing."""

    epochs: int
    minutes: float
    patience: int


SCHEDULES: dict[Level, Schedule] = {"temporal": Schedule(60, 10.0, 15), "full": Schedule(30, 30.0, 6)}


def open_level(request: Request, prepared: Prepared, folder: Path, started_s: float) -> Run | None:
    """Open the folder of a training by gradient descent; None for a probe, which takes seconds.

    ``folder`` is that of the model in the store, ``started_s`` when the command started (monotonic clock).

    Raises:
        CannotTrain: the folder is of another training.
        OSError: it cannot be written.
    """
    level = request.last_level
    if level == "probe":
        return None
    checked, base = prepared.checked, prepared.base
    is_mirrored = _is_mirrored(request, prepared)
    out = request.out or default_folder(request, folder)
    plan = {
        "base": base_text(base),
        "level": level if request.rival is None else f"{request.level} or {level}",
        "data": data_digest(checked.survey.clips, checked.survey.digests),
        "window": prepared.sampling.window_s,
        "mirroring": is_mirrored,
        "epochs": request.epochs,
        "minutes": request.minutes,
    }
    open_run(out, plan, request)
    schedule = SCHEDULES[level]
    minutes = None if request.epochs else request.minutes or schedule.minutes
    epochs = request.epochs or schedule.epochs
    limit = counted(epochs, "epoch")
    if minutes is not None:
        limit = f"at most {limit} or {counted(minutes, 'minute')}"
    if epochs > schedule.patience:
        limit += f", fewer if {schedule.patience} epochs bring nothing"
    notes.print(f"level {level}: {limit}; kept in {out}")
    ends_s = None if minutes is None else started_s + 60 * minutes
    return Run(level, out, epochs, schedule.patience, ends_s, is_mirrored, request.resume)


def _is_mirrored(request: Request, prepared: Prepared) -> bool:
    """Return whether windows may be mirrored, and say so where labels forbid it."""
    directed = labels_with_direction(
        sorted({label for clip in prepared.checked.survey.clips for label in clip.labels})
    )
    if directed and request.mirroring == "auto":
        named = ", ".join(map(repr, directed[:_MOST_NAMED]))
        notes.print(
            f"windows are not mirrored, since labels name a side or a turn: {named}; --mirror on mirrors them"
        )
    return request.mirroring == "on" or (request.mirroring == "auto" and not directed)
