"""What all of transformers' folders tell alike: size, labels, licence."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from models.checkpoints.foreign import CannotImport
from models.contract import OutputActivation

_PROBLEM_TYPES: dict[str, OutputActivation] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}


def both_sides(size: Any, key: str) -> tuple[int, int]:
    """(height, width) of a size in a config, which is one number or two.

    Raises:
        CannotImport: it is neither.
    """
    match size:
        case [int(side)] | int(side):
            return side, side
        case [int(height), int(width)]:
            return height, width
    raise CannotImport(f"{key} in its config is {size!r}, not one number or height and width")


def read_id2label(config: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """The labels in the order of the logits, or none and the reason why the config's cannot be used.

    A config that has only placeholders has none. Names that stand for several logits get the logit's number:
    ImageNet has two kinds of crane.
    """
    names = config.get("id2label") or {}
    if not isinstance(names, dict):
        return (), f"id2label in its config is no table of logits and labels, but {type(names).__name__}"
    if not all(re.fullmatch(r"\d{1,9}", key) for key in names):
        return (), "id2label in its config has keys that are no numbers of logits"
    by_logit = sorted((int(key), "" if name is None else str(name)) for key, name in names.items())
    if [logit for logit, _ in by_logit] != list(range(len(by_logit))):
        first, last = by_logit[0][0], by_logit[-1][0]
        return (), (
            f"id2label in its config has {len(by_logit)} labels for logits {first} to {last}, but logits are "
            "numbered from 0 on, without gaps"
        )
    labels = [label for _, label in by_logit]
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        return (), ""
    times = Counter(labels)
    numbered = (f"{label} ({logit})" if label and times[label] > 1 else label for logit, label in by_logit)
    return tuple(numbered), ""


def read_activation(config: dict[str, Any]) -> OutputActivation:
    """How a model of this config makes scores of its logits.

    Raises:
        CannotImport: it makes none, but numbers (regression), or the config names no known kind of problem.
    """
    problem = config.get("problem_type")
    if problem == "regression":
        raise CannotImport("problem_type in its config is 'regression': it gives numbers, not labels")
    if problem not in (None, *_PROBLEM_TYPES):
        raise CannotImport(
            f"problem_type in its config is {problem!r}; supported are {', '.join(_PROBLEM_TYPES)}"
        )
    return _PROBLEM_TYPES[problem or "single_label_classification"]


def read_licence(folder: Path) -> str:
    """As the model card's front matter says."""
    card = folder / "README.md"
    found = (
        re.search(r"^license:\s*(\S+)", card.read_text("utf-8-sig", "replace"), re.MULTILINE)
        if card.is_file()
        else None
    )
    return found[1] if found else "unknown"
