"""Names for labels that are numbers, from a file with a line for each class."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tubelet.service.cli.evaluation.dataset import InvalidDataset, list_text
from tubelet.service.cli.train.data.clips import DIVIDER, Clip

_NUMBERED = re.compile(r"(\d+)[\s,;:]+(.+)")


def read_label_names(file: Path) -> dict[int, str]:
    """Return the name of each class by its number: lines count from 0, unless each begins with its number.

    Raises:
        InvalidDataset: the file cannot be read, a line is empty, or a name or number is there twice.
    """
    lines = [line.strip() for line in list_text(file).rstrip().splitlines()]
    found = [_NUMBERED.fullmatch(line) for line in lines]
    pairs = [(int(each[1]), each[2].strip()) for each in found if each is not None]
    if len(pairs) < len(lines) or not lines:
        pairs = list(enumerate(lines))
    names: dict[int, str] = {}
    for line, (number, name) in enumerate(pairs, 1):
        if not name:
            raise InvalidDataset(f"{file}, line {line}: is empty, but each line names a class")
        if number in names or name in names.values():
            raise InvalidDataset(f"{file}, line {line}: the class {number}, {name!r}, is there twice")
        names[number] = name
    if not names:
        raise InvalidDataset(f"{file} is empty: a line with a name for each class is wanted")
    return names


def name_labels(clips: Sequence[Clip], file: Path | None) -> tuple[Clip, ...]:
    """Return the clips with the names of ``file`` in place of numbers; without a file, as they are.

    Labels then have the order of their numbers.

    Raises:
        InvalidDataset: the file cannot be read, or lacks a class of the clips.
    """
    if file is None:
        return tuple(clips)
    names = read_label_names(file)
    order = tuple(name for _, name in sorted(names.items()))
    return tuple(_named(clip, names, order, file) for clip in clips)


def _named(clip: Clip, names: Mapping[int, str], order: tuple[str, ...], file: Path) -> Clip:
    """Return a clip with names for its numbers."""
    named = []
    for label in clip.labels:
        name = names.get(int(label)) if label.isascii() and label.isdigit() else label
        if name is None or name not in order:
            raise InvalidDataset(
                f"{file} has no class {label!r}, which is the label of {clip.name}: it has "
                f"{len(names)} classes, {min(names)} to {max(names)}"
            )
        if clip.is_multilabel and DIVIDER in name:
            raise InvalidDataset(f"{file}: {name!r} has a {DIVIDER!r}, which divides labels in this data")
        named.append(name)
    return replace(clip, label=DIVIDER.join(named), label_order=order)
