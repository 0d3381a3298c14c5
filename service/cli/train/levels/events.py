"""Loss and accuracy by epoch for TensorBoard, where it is installed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tubelet.models.training.fine_tuning import EpochFigures
from tubelet.models.training.processes import rank

_NAMES = "events.out.tfevents.*"  # as TensorBoard finds them


@contextmanager
def events_in(folder: Path, measure: str) -> Iterator[Callable[[EpochFigures], None]]:
    """Open an event file in ``folder``, and yield what adds the figures of an epoch.

    ``measure`` names their accuracy. Without TensorBoard, and in all but the first of several processes,
    nothing is written.
    """
    if rank() != 0 or find_spec("tensorboard") is None:
        yield lambda figures: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:

        def add(figures: EpochFigures) -> None:
            values = {
                "loss/training": figures.loss,
                "loss/validation": figures.validation_loss,
                f"{measure}/training": figures.accuracy,
                f"{measure}/validation": figures.validation_accuracy,
                "clips a second": figures.clips_per_s,
            }
            for name, value in values.items():
                writer.add_scalar(name, value, figures.epoch)

        yield add


def remove_events(folder: Path) -> None:
    """Remove the event files of an earlier training in ``folder``."""
    for file in folder.glob(_NAMES):
        file.unlink()
