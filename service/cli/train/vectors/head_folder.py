"""The folder of a head without a model: its weights, its labels, and a card that says how to apply it."""

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from tubelet.models.errors import CannotTrain
from tubelet.models.repository.partial_folder import partial_folder
from tubelet.models.repository.publish import publish_folder
from tubelet.models.training.probe_fit import Probe

WEIGHTS, LABELS, CARD = "head.safetensors", "labels.txt", "CARD.md"


def check_head_folder(folder: Path, *, replace: bool) -> None:
    """Refuse a folder that is taken or cannot be written.

    Raises:
        CannotTrain: it exists, and is no head or is not to be replaced; it cannot be written.
    """
    if folder.exists() and not replace:
        raise CannotTrain(f"{folder} exists: name another folder with --out, or give --replace")
    if folder.exists() and not (folder / WEIGHTS).is_file():
        raise CannotTrain(f"{folder} has no {WEIGHTS}, so that --replace would remove something else")
    parent = next(each for each in folder.absolute().parents if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise CannotTrain(f"{parent} is no folder that can be written")


def write_head(folder: Path, probe: Probe, temperature: float, labels: tuple[str, ...], card: str) -> None:
    """Write the folder of a head, completely or not at all; the temperature becomes part of the weights.

    Raises:
        CannotTrain: it cannot be written.
    """
    try:
        with partial_folder(folder) as partial:
            partial.chmod(0o755)
            head = probe.head
            weights = {"weight": head.weight / temperature, "bias": head.bias / temperature}
            if probe.pooling is not None:
                weights |= probe.pooling.state_dict()
            save_file(weights, partial / WEIGHTS)
            (partial / WEIGHTS).chmod(0o644)
            (partial / LABELS).write_text("".join(f"{label}\n" for label in labels), "utf-8")
            (partial / CARD).write_text(card, "utf-8")
            publish_folder(partial, folder)
    except (OSError, SafetensorError) as error:
        raise CannotTrain(f"{folder} cannot be written: {error}") from error
