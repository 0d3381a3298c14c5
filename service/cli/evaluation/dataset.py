"""Videos with their true labels: a folder of class folders, or a list of paths and labels."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from tubelet.service.types.uri import is_uri

_HEADERS = {"path", "file", "video"}  # what the first column of a list may be called
_SPACED = re.compile(r"(.*\S)\s+(\S+)")  # as PySlowFast and mmaction2 write lists; the path may have spaces
_RESULTS = "results.jsonl"
_LABELS_SHOWN = 30  # of a model's, in an error
_CLOSE = 0.75  # what share of a label must be alike, so that it is taken for misspelt


class BadData(Exception):
    """The data cannot be read, or not with this model."""


@dataclass(frozen=True, slots=True)
class LabelledVideo:
    """``name`` is as the data has it: a path relative to its folder, or what the list says."""

    name: str
    video: str  # its path or its URI
    label: str


def read_labelled(data: Path) -> tuple[LabelledVideo, ...]:
    """The videos of a folder, which may lie in folders within their class's; or those of a list.

    A line of a list holds the path, relative to the list, or the URI, and the label. Between them is a comma,
    and further columns are ignored; or space, and the label is the last word. A first line ``path,label``
    names them.

    Raises:
        BadData: there are none, or it is no such folder or file, or a path is there twice.
    """
    videos = tuple(_of_folder(data) if data.is_dir() else _of_list(data))
    if not videos:
        raise BadData(
            f"{data} names no videos: it must be a folder of class folders, or a list of path,label"
        )
    names: set[str] = set()
    for video in videos:
        if video.name in names:
            raise BadData(f"{data} names {video.name} twice")
        names.add(video.name)
    return videos


def with_model_labels(
    videos: Sequence[LabelledVideo], model: str, labels: tuple[str, ...]
) -> tuple[LabelledVideo, ...]:
    """Return the videos with labels of the model: numbers, where all labels are, count its classes from 0.

    Raises:
        BadData: videos have labels that are not among the model's.
    """
    named = {video.label for video in videos}
    unknown = sorted(named - set(labels))
    if unknown and all(label.isascii() and label.isdigit() for label in named):
        highest = max(map(int, named))
        if highest >= len(labels):
            raise BadData(
                f"the data has class {highest}, but the classes of {model} are 0 to {len(labels) - 1}"
            )
        return tuple(replace(video, label=labels[int(video.label)]) for video in videos)
    if unknown:
        wrong = ", ".join(_with_closest(label, labels) for label in unknown)
        shown = ", ".join(labels[:_LABELS_SHOWN])
        more = f" and {len(labels) - _LABELS_SHOWN} more" if len(labels) > _LABELS_SHOWN else ""
        raise BadData(f"{model} has no label {wrong}; it has: {shown}{more}")
    return tuple(videos)


def _of_folder(folder: Path) -> Iterable[LabelledVideo]:
    for path in sorted(folder.glob("*/**/*")):
        parts = path.relative_to(folder).parts
        # A folder that an evaluation writes may lie there, too.
        is_class = not (folder / parts[0] / _RESULTS).exists()
        if is_class and path.is_file() and not any(part.startswith(".") for part in parts):
            yield LabelledVideo("/".join(parts), str(path), parts[0])


def _of_list(file: Path) -> Iterable[LabelledVideo]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
        rows = _spaced_rows(text) if _is_spaced(text) else list(csv.reader(StringIO(text, newline="")))
    except OSError as error:
        raise BadData(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{file} is neither a folder nor a list: {error}") from None
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) < 2:
            raise BadData(f"{file}, line {number}: wants path,label; found {row[0]!r}")
        name, label = row[0].strip(), row[1].strip()
        if number == 1 and name.lower() in _HEADERS and label.lower() == "label":
            continue
        yield LabelledVideo(name, name if is_uri(name) else str(file.parent / name), label)


def _is_spaced(text: str) -> bool:
    """Is it space, not a comma, that parts path and label? Paths may have commas, names of classes spaces."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    with_comma = sum("," in line for line in lines)
    if with_comma == 0:
        return any(_SPACED.fullmatch(line) for line in lines)
    found = [_SPACED.fullmatch(line) for line in lines]
    return with_comma < len(lines) and all(each is not None and each[2].isdigit() for each in found)


def _spaced_rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        found = _SPACED.fullmatch(line.strip())
        yield [found[1], found[2]] if found else line.split()


def _with_closest(label: str, labels: tuple[str, ...]) -> str:
    by_lower = {known.lower(): known for known in labels}
    spellings = (label.lower(), label.lower().replace("_", " "))
    closest = [near for each in spellings for near in get_close_matches(each, by_lower, n=1, cutoff=_CLOSE)]
    return f"{label!r} (closest: {by_lower[closest[0]]!r})" if closest else f"{label!r}"
