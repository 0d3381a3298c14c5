"""The free space that a training needs for checkpoints and for the model."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path

from tubelet.models.errors import CannotTrain
from tubelet.models.repository.model_folder import WEIGHTS
from tubelet.service.cli.train.base import Base, Untrained
from tubelet.service.cli.train.levels.run_folder import default_folder
from tubelet.service.cli.train.new_model import Request

_PAGE_BYTES = 4 << 20  # of the page and the other files of a model, about
_STATES = 8
"""Times the weights that checkpoints have: the last one and the best, each with its average, the state of the
optimiser, and once more while a file is written anew."""


def check_model_space(folder: Path, base: Base) -> None:
    """Refuse a folder for a model trained from ``base`` whose disk is nearly full.

    Raises:
        CannotTrain: it is.
    """
    require_space(folder, _weights_bytes(base) + _PAGE_BYTES, "the model", "models.store")


def check_checkpoint_space(folder: Path, base: Base) -> None:
    """Refuse a folder for the checkpoints of all of ``base`` whose disk is nearly full.

    Raises:
        CannotTrain: it is.
    """
    require_space(folder, _STATES * _weights_bytes(base), "checkpoints", "--out")


def require_space(folder: Path, needed_bytes: int, what: str, setting: str) -> None:
    """Refuse a folder, which may not exist yet, on a disk with less than ``needed_bytes`` free.

    ``what`` is written there, and ``setting`` names another place.

    Raises:
        CannotTrain: it is so.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < needed_bytes:
        raise CannotTrain(
            f"the disk of {folder} has {free_bytes / 2**20:.1f} MiB free, and {what} may need "
            f"{needed_bytes / 2**20:.1f} MiB: free some, or name another place with {setting}"
        )


@contextmanager
def full_disk_said(request: Request, folder: Path) -> Iterator[None]:
    """Say where the disk is full, and what to do; ``folder`` is that of the model in the store.

    Raises:
        CannotTrain: it is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT):
            raise
        resume = "" if request.last_level == "probe" else ", with --resume to go on after the last checkpoint"
        out = request.out or default_folder(request, folder)
        raise CannotTrain(
            f"no space is left on the disk of {out} or of {folder}: "
            f"free some, then run the same command again{resume}"
        ) from error


def _weights_bytes(base: Base) -> int:
    """Return the size of the base's weights; 0 for random weights, which are small."""
    return 0 if isinstance(base, Untrained) else (base.folder / WEIGHTS).stat().st_size
