"""The folder of a training that takes minutes or hours: what it is of, its checkpoints, and a lock."""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blake3 import blake3
from platformdirs import user_state_path

from tubelet.models.errors import CannotTrain
from tubelet.models.json_file import write_json
from tubelet.models.training.fine_tuning import BEST, LAST
from tubelet.models.training.processes import rank
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.levels.events import remove_events
from tubelet.service.cli.train.new_model import Request
from tubelet.service.cli.train.report.page import PAGE

PLAN, LOG, COSTS = "training.json", "epochs.jsonl", "costs.json"
_FINISHED = "finished"
_DATA = "data"  # in a plan, a digest of what is trained on


@contextmanager
def name_lock(request: Request, folder: Path) -> Iterator[None]:
    """Hold the name of a model, whose folder in the store is ``folder``, while it is trained.

    Raises:
        CannotTrain: another process trains a model of this name.
    """
    if rank():
        yield  # process 0 holds it
        return
    own = default_folder(request, folder)
    file = own.with_name(f"{own.name}.lock")  # a version may have dots
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.open("w")
    except OSError:  # without a home, there is no place to agree on
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotTrain(
                f"{request.name} {request.version} is being trained by another process: wait for it, or "
                "choose another name"
            ) from None
        yield


def default_folder(request: Request, folder: Path) -> Path:
    """Return the folder of a training in the user's state; ``folder`` is that of the model in the store."""
    store = blake3(str(folder.resolve()).encode()).hexdigest()[:8]
    return user_state_path("tubelet") / "training" / f"{request.name}-{request.version}-{store}"


def open_run(folder: Path, plan: Mapping[str, Any], request: Request) -> None:
    """Make the folder of a new training, or check that the one in ``folder`` is the one to go on with.

    Only process 0 does.

    Raises:
        CannotTrain: there is nothing to resume, or something else; or an unfinished training would be lost.
        OSError: the folder cannot be written.
    """
    if rank():
        return
    if request.resume:
        _check_resumable(folder, plan)
        return
    file = folder / PLAN
    known = _read(file)
    check_folder(folder)
    if known is not None and not known.get(_FINISHED) and (folder / LAST).exists() and not request.replace:
        raise CannotTrain(
            f"{folder} has an unfinished training: give --resume to go on with it, or --replace to start anew"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for old in (LAST, BEST, LOG, COSTS):
        (folder / old).unlink(missing_ok=True)
    remove_events(folder)
    write_json(file, plan, indent=1)


def check_folder(folder: Path) -> None:
    """Refuse a folder for checkpoints that has files of something else.

    Raises:
        CannotTrain: it has.
        OSError: it is no folder, or it cannot be read.
    """
    if not folder.exists() or _read(folder / PLAN) is not None:
        return
    if any(file.name != PAGE for file in folder.iterdir()):
        raise CannotTrain(f"{folder} has files that are no training's: give another --out")


def data_digest(clips: Sequence[Clip], digests: Mapping[str, str]) -> str:
    """Return a digest of what is trained on: the content, part, label, scene and split of each clip."""
    ordered = sorted(clips, key=lambda each: each.name)
    told = [(digests[clip.video], clip.range_s, clip.label, clip.group, clip.is_test) for clip in ordered]
    validation = [clip.name for clip in ordered if clip.is_validation]
    return blake3(repr((told, validation) if validation else told).encode()).hexdigest()[:16]


def finish_run(folder: Path) -> None:
    """Note that the model of a training is in the store."""
    write_json(folder / PLAN, (_read(folder / PLAN) or {}) | {_FINISHED: True}, indent=1)


def check_started(folder: Path) -> dict[str, Any]:
    """Return the plan of the training in ``folder`` that is to be resumed.

    Raises:
        CannotTrain: there is none, or it is finished.
    """
    if (known := _read(folder / PLAN)) is None:
        raise CannotTrain(
            f"there is no training in {folder} to resume: leave out --resume, or give its --out"
        )
    if known.get(_FINISHED):
        raise CannotTrain(f"the training in {folder} is finished: leave out --resume to start anew")
    return known


def _check_resumable(folder: Path, plan: Mapping[str, Any]) -> None:
    """Refuse to go on with a training that is not there, or that was started with something else."""
    known = check_started(folder)
    for name, value in plan.items():
        if known.get(name) != json.loads(json.dumps(value)):
            was = "other data" if name == _DATA else f"{name} {known.get(name)}, now it is {value}"
            raise CannotTrain(
                f"--resume: the training in {folder} was started with {was}: give what it was started with, "
                "or --replace instead of --resume to start anew"
            )


def _read(file: Path) -> dict[str, Any] | None:
    """Return the content of a plan; None if there is none that can be read."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
