"""Videos with their true labels: a folder of class folders, or a CSV of path and label."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from service.uri import is_uri

_HEADERS = {"path", "file", "video"}  # what the first column of a CSV may be called
_RESULTS = "results.jsonl"
_LABELS_SHOWN = 30  # of a model's, in an error
_CLOSE = 0.75  # what share of a label must be alike, so that it is taken for misspelt


class BadData(Exception):
    """The data cannot be read, or not with this model."""


@dataclass(frozen=True, slots=True)
class LabelledVideo:
    """``name`` is as the data has it: a path relative to its folder, or what the CSV says."""

    name: str
    video: str  # its path or its URI
    label: str


def read_labelled(data: Path) -> tuple[LabelledVideo, ...]:
    """The videos of a folder, which may lie in folders within their class's; or those of a CSV.

    A CSV holds the path, relative to itself, or the URI, and the label; a first line ``path,label`` names
    them. Further columns are ignored.

    Raises:
        BadData: there are none, or it is no such folder or file, or a path is there twice.
    """
    videos = tuple(_of_folder(data) if data.is_dir() else _of_csv(data))
    if not videos:
        raise BadData(f"{data} names no videos: it must be a folder of class folders, or a CSV of path,label")
    names: set[str] = set()
    for video in videos:
        if video.name in names:
            raise BadData(f"{data} names {video.name} twice")
        names.add(video.name)
    return videos


def check_labels(videos: Iterable[LabelledVideo], model: str, labels: tuple[str, ...]) -> None:
    """
    Raises:
        BadData: videos have labels that are not among the model's.
    """
    unknown = sorted({video.label for video in videos} - set(labels))
    if unknown:
        named = ", ".join(_with_closest(label, labels) for label in unknown)
        shown = ", ".join(labels[:_LABELS_SHOWN])
        more = f" and {len(labels) - _LABELS_SHOWN} more" if len(labels) > _LABELS_SHOWN else ""
        raise BadData(f"{model} has no label {named}; it has: {shown}{more}")


def _of_folder(folder: Path) -> Iterable[LabelledVideo]:
    for path in sorted(folder.glob("*/**/*")):
        parts = path.relative_to(folder).parts
        # A folder that an evaluation writes may lie there, too.
        is_class = not (folder / parts[0] / _RESULTS).exists()
        if is_class and path.is_file() and not any(part.startswith(".") for part in parts):
            yield LabelledVideo("/".join(parts), str(path), parts[0])


def _of_csv(file: Path) -> Iterable[LabelledVideo]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = [(number, row) for number, row in enumerate(csv.reader(lines), 1) if row]
    except OSError as error:
        raise BadData(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{file} is neither a folder nor a CSV: {error}") from None
    for number, row in rows:
        if len(row) < 2:
            raise BadData(f"{file}, line {number}: wants path,label; found {row[0]!r}")
        name, label = row[0].strip(), row[1].strip()
        if number == 1 and name.lower() in _HEADERS and label.lower() == "label":
            continue
        yield LabelledVideo(name, name if is_uri(name) else str(file.parent / name), label)


def _with_closest(label: str, labels: tuple[str, ...]) -> str:
    by_lower = {known.lower(): known for known in labels}
    spellings = (label.lower(), label.lower().replace("_", " "))
    closest = [near for each in spellings for near in get_close_matches(each, by_lower, n=1, cutoff=_CLOSE)]
    return f"{label!r} (closest: {by_lower[closest[0]]!r})" if closest else f"{label!r}"
