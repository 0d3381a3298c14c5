"""Videos with their true labels, read from a folder of class folders or from a list."""

import csv
import os
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import TypeVar

from tubelet.service.cli.evaluation.parquet_list import PARQUET, UnreadableTable, parquet_rows
from tubelet.service.types.uri import is_uri

_HEADERS = ("path", "file", "video")  # names of a list's first column
_SPACE_SEPARATED = re.compile(
    r"(.*\S)\s+(\S+)"
)  # a line of PySlowFast or mmaction2; the path may have spaces
_RESULTS = "results.jsonl"
_MAX_LABELS_LISTED = 30  # in an error
_MIN_SIMILARITY = 0.75  # from which a label is suggested for a misspelt one; 1 is equal


class InvalidDataset(Exception):
    """The data cannot be read, or does not fit the model."""


@dataclass(frozen=True, slots=True)
class LabelledVideo:
    """A video and its true label; ``name`` is its path relative to the folder, or as in the list."""

    name: str
    video: str  # a path or a URI
    label: str


def read_labelled(data: Path) -> tuple[LabelledVideo, ...]:
    """Read the videos of a folder, with a folder for each class, or of a list.

    A list may be a Parquet file with the columns ``path`` and ``label``, or text. A line of text has a path,
    relative to the list, or a URI, and the label. They are separated by a comma, tab or semicolon, and more
    columns are ignored; or by space, and the label is the last word. The first line may be the header
    ``path,label``.

    Raises:
        InvalidDataset: there are no videos, the data cannot be read, or it names a path twice.
    """
    videos = tuple(_read_folder(data) if data.is_dir() else _read_list(data))
    if not videos:
        raise InvalidDataset(
            f"{data} names no videos: it must be a folder of class folders, or a list of path,label"
        )
    names: set[str] = set()
    for video in videos:
        if video.name in names:
            raise InvalidDataset(f"{data} names {video.name} twice")
        names.add(video.name)
    return videos


_Video = TypeVar("_Video", bound=LabelledVideo)


def with_model_labels(
    videos: Sequence[_Video], model: str, labels: tuple[str, ...], divider: str | None = None
) -> tuple[_Video, ...]:
    """Return the videos with labels of the model; if all labels are numbers, they count classes from 0.

    With a ``divider``, a video has any number of labels, with it between them.

    Raises:
        InvalidDataset: the model does not have all labels.
    """

    def several(label: str) -> list[str]:
        return [label] if divider is None else [each for each in label.split(divider) if each]

    named = {label for video in videos for label in several(video.label)}
    unknown = sorted(named - set(labels))
    if unknown and all(label.isascii() and label.isdigit() for label in named):
        highest = max(map(int, named))
        if highest >= len(labels):
            raise InvalidDataset(
                f"the data has class {highest}, but {model} has the classes 0 to {len(labels) - 1}"
            )
        join = (divider or "").join
        return tuple(
            replace(video, label=join(labels[int(each)] for each in several(video.label))) for video in videos
        )
    if unknown:
        wrong = ", ".join(_describe_unknown(label, labels) for label in unknown)
        shown = ", ".join(labels[:_MAX_LABELS_LISTED])
        more = f" and {len(labels) - _MAX_LABELS_LISTED} more" if len(labels) > _MAX_LABELS_LISTED else ""
        raise InvalidDataset(f"{model} has no label {wrong}; it has: {shown}{more}")
    return tuple(videos)


def _read_folder(folder: Path) -> Iterable[LabelledVideo]:
    """Yield the files below each class's folder, at any depth, without hidden ones."""
    for path in sorted(folder.glob("*/**/*")):
        parts = path.relative_to(folder).parts
        # An evaluation may have written its own folder there.
        is_class = not (folder / parts[0] / _RESULTS).exists()
        if is_class and path.is_file() and not any(part.startswith(".") for part in parts):
            yield LabelledVideo("/".join(parts), str(path), parts[0])


def _read_list(file: Path) -> Iterable[LabelledVideo]:
    """Yield the videos of a list, with paths relative to its folder."""
    pairs = _read_table(file) if file.suffix.lower() == PARQUET else _read_text(file)
    for name, label in pairs:
        yield LabelledVideo(name, name if is_uri(name) else str(file.parent / name), label)


def _read_table(file: Path) -> Iterator[tuple[str, str]]:
    """Yield path and label of each row of a Parquet file."""
    try:
        rows = parquet_rows(file)
    except OSError as error:
        raise InvalidDataset(f"{file} cannot be read: {error.strerror}") from None
    except UnreadableTable as error:
        raise InvalidDataset(f"{file} cannot be read: {error}") from None
    for number, row in enumerate(rows, 1):
        name = next((row[column] for column in _HEADERS if row.get(column)), "")
        if not name or not row.get("label"):
            columns = ", ".join(map(repr, row))
            raise InvalidDataset(f"{file}, row {number}: must have path and label; the columns are {columns}")
        yield name, row["label"]


def _read_text(file: Path) -> Iterator[tuple[str, str]]:
    """Yield path and label of each line of a text file."""
    text = list_text(file)
    try:
        delimiter = _delimiter(file, text)
        rows = (
            list(csv.reader(StringIO(text, newline=""), delimiter=delimiter))
            if delimiter
            else _read_space_separated(text)
        )
    except csv.Error as error:
        raise InvalidDataset(f"{file} is neither a folder nor a list: {error}") from None
    for number, row in enumerate(rows, 1):
        if not any(map(str.strip, row)):
            continue
        if len(row) < 2:
            raise InvalidDataset(f"{file}, line {number}: must be path,label; found {row[0]!r}")
        name, label = row[0].strip(), row[1].strip()
        if number == 1 and name.lower() in _HEADERS and label.lower() == "label":
            continue
        yield name, label


def list_text(file: Path) -> str:
    """Return the text of a list, in UTF-8, or in UTF-16 with its mark at the start, as Excel writes it.

    Raises:
        InvalidDataset: it cannot be read, or is no such text.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidDataset(f"{file} cannot be read: {error.strerror}") from None
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidDataset(
            f"{file} is neither a folder nor a list in UTF-8: found the byte 0x{content[error.start]:02x} at "
            f"{error.start}; if it is a list, save it as UTF-8"
        ) from None


def _delimiter(file: Path, text: str) -> str:
    """Return what separates the paths and labels of a list: a comma, tab or semicolon; "" is space.

    Paths may have commas, and labels spaces. A semicolon separates where each line has one, and what is
    before it is a file; otherwise it divides labels.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and all(line.count("\t") == 1 for line in lines):
        return "\t"
    with_comma = sum("," in line for line in lines)
    if with_comma == 0 and lines and all(line.count(";") == 1 for line in lines):
        first = lines[-1].partition(";")[0].strip().strip('"')
        return ";" if os.path.isfile(file.parent / first) else ""
    found = [_SPACE_SEPARATED.fullmatch(line) for line in lines]
    if with_comma == 0:
        return "" if any(found) else ","
    are_numbers = all(each is not None and each[2].isdigit() for each in found)
    return "" if with_comma < len(lines) and are_numbers else ","


def _read_space_separated(text: str) -> Iterator[list[str]]:
    """Yield path and label of each line; a line without a label gives its path alone."""
    for line in text.splitlines():
        found = _SPACE_SEPARATED.fullmatch(line.strip())
        yield [found[1], found[2]] if found else line.split()


def _describe_unknown(label: str, labels: tuple[str, ...]) -> str:
    """Quote a label that the model does not have, with the model's most similar one if there is any."""
    by_lower = {known.lower(): known for known in labels}
    spellings = (label.lower(), label.lower().replace("_", " "))
    closest = [
        near for each in spellings for near in get_close_matches(each, by_lower, n=1, cutoff=_MIN_SIMILARITY)
    ]
    return f"{label!r} (closest: {by_lower[closest[0]]!r})" if closest else f"{label!r}"
