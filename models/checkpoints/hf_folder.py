"""What all of transformers' folders tell alike: size, labels, licence."""

import re
from collections import Counter
from pathlib import Path
from typing import Any


def image_size(config: dict[str, Any]) -> tuple[int, int]:
    size = config["image_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return height, width


def read_labels(config: dict[str, Any]) -> tuple[str, ...]:
    """In the order of the logits; none where the checkpoint has only placeholders.

    Names that stand for several logits get the logit's number: ImageNet has two kinds of crane.
    """
    names = config.get("id2label") or {}
    labels = [str(names[str(number)]) for number in range(len(names))]
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        return ()
    times = Counter(labels)
    return tuple(f"{label} ({number})" if times[label] > 1 else label for number, label in enumerate(labels))


def read_licence(folder: Path) -> str:
    """As the model card's front matter says."""
    card = folder / "README.md"
    found = re.search(r"^license:\s*(\S+)", card.read_text(), re.MULTILINE) if card.is_file() else None
    return found[1] if found else "unknown"
