"""The head (last layer) of torchvision's classifiers, which fine-tuning replaces."""

import re
from pathlib import Path

from torch import Tensor

from tubelet.models.errors import CannotImport
from tubelet.models.families.torchvision import head_of

_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def of_inner_model(state: dict[str, Tensor], name: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the state dict of the model that is part of another module, and the names of all else.

    The part is found by its head, such as ``backbone.fc.weight``; without one, the state dict stays as it is.
    """
    head = f"{head_of(name)}.weight"
    places = [key.removesuffix(head) for key in state if key.endswith(f".{head}")]
    places = [place for place in places if not place.endswith(_AUXILIARY)]
    if head in state or len(places) != 1:
        return state, ()
    own = {key.removeprefix(places[0]): value for key, value in state.items() if key.startswith(places[0])}
    return own, tuple(key for key in state if not key.startswith(places[0]))


def with_usual_head(state: dict[str, Tensor], name: str, file: Path) -> dict[str, Tensor]:
    """Rename the head in ``state``, read from ``file``, to torchvision's name for architecture ``name``.

    Fine-tuning may have replaced it by a layer in place of the sequence around it, or by a sequence with
    layers without parameters, such as dropout.

    Raises:
        CannotImport: there is no head, or it has several layers.
    """
    head = head_of(name)
    if f"{head}.weight" in state:
        return state
    around = re.escape(head.rpartition(".")[0] or head)
    replaced = re.compile(rf"((?:{re.escape(head)}\.\d+|{around}(?:\.\d+)?))\.weight")
    found = [
        match[1]
        for key, value in state.items()
        if (match := replaced.fullmatch(key)) is not None and value.ndim > 1
    ]
    if not found:
        some = ", ".join(list(state)[-3:])
        raise CannotImport(
            f"{file} has no head: a {name} ends in {head}.weight, this ends in {some}. A backbone must be "
            "trained with a head before its labels mean anything"
        )
    if len(found) > 1:
        raise CannotImport(
            f"{file} has a head of several layers ({', '.join(found)}), torchvision's {name} has one, {head}"
        )
    # The bias moves with the weight.
    moved = re.compile(rf"^{re.escape(found[0])}\.(?=weight$|bias$)")
    return {moved.sub(f"{head}.", key): value for key, value in state.items()}


def without_auxiliary_heads(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the auxiliary heads of GoogLeNet and Inception, which only training needs."""
    return {key: value for key, value in state.items() if not key.startswith(_AUXILIARY)}
