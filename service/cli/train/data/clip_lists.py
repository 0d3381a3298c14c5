"""Lists of clips as rows: CSVs and Parquet files with more columns, and paths followed by class numbers."""

import csv
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from tubelet.service.cli.evaluation.dataset import InvalidDataset, LabelledVideo, list_text
from tubelet.service.cli.evaluation.parquet_list import PARQUET, UnreadableTable, parquet_rows

_NAMES = {
    "path": ("path", "file", "video", "filename", "video_path"),
    "label": ("label", "class"),
    "start": ("start", "start_s", "start_time", "time_start"),
    "end": ("end", "end_s", "end_time", "time_end"),
    "group": ("group", "scene"),
    "split": ("split",),
}
"""The names that each column may have; the first one that is there counts."""
_PLAIN = tuple((path, "label") for path in ("path", "file", "video"))  # headers of lists without more columns
_OPTIONAL = ("start", "end", "group", "split")
_DELIMITERS = (",", ";", "\t")
_JSON_LINES = ".jsonl"
_MAX_NAMED = 12  # columns in an error
_OF_VECTORS = "; a file of embeddings has a column vector, with a list of numbers in each row"
_TWO_WORDS = re.compile(r".*\S\s+\d+")  # a path and a number

KNOWN_COLUMNS = "known are path, label, start, end, group and split"

Rows = list[tuple[int, dict[str, str]]]
"""The number of each line, and its values by the names of the columns, in lower case."""


def clip_rows(file: Path) -> Rows | None:
    """Return the lines of a list with more columns than path and label; None for other lists.

    Columns get the names of ``_NAMES``, whatever the file calls them.

    Raises:
        InvalidDataset: it cannot be read, or has only one of path and label; a line has more values than the
            header.
    """
    delimiter = ","
    if file.suffix.lower() == PARQUET:
        try:
            table = list(enumerate(parquet_rows(file), 1))
        except (OSError, UnreadableTable):
            return None  # whoever reads lists without these columns says why
    elif file.suffix.lower() == _JSON_LINES:
        table = _json_rows(file)
    else:
        delimiter, table = _csv_rows(file)
    header = list(table[0][1]) if table else []
    names = {
        wanted: next((each for each in known if each in header), None) for wanted, known in _NAMES.items()
    }
    missing = [name for name in ("path", "label") if names[name] is None]
    if len(missing) == 2 or (delimiter == "," and _is_plain(header)):
        return None
    if missing:
        if os.path.isfile(file.parent / header[0]):
            return None  # the first line is no header
        named = ", ".join(header[:_MAX_NAMED]) + (", ..." if len(header) > _MAX_NAMED else "")
        hint = _OF_VECTORS if file.suffix.lower() == PARQUET else ""
        raise InvalidDataset(f"{file}: the header has no column {missing[0]}; it has {named}{hint}")
    found = {wanted: name for wanted, name in names.items() if name is not None}
    return [
        (number, {wanted: row[name] for wanted, name in found.items()})
        for number, row in table
        if any(row.values())
    ]


def unread_columns(file: Path) -> tuple[str, ...]:
    """Return the columns of a CSV or Parquet file with a header that nothing is read from, in their order.

    Objects of JSON lines have further fields as a rule, so that nothing is said of them.

    Raises:
        InvalidDataset: the file cannot be read.
    """
    suffix = file.suffix.lower()
    if file.is_dir() or suffix == _JSON_LINES:
        return ()
    header = list(parquet_rows(file)[0]) if suffix == PARQUET else list(_csv_rows(file)[1][0][1])
    read = [next((each for each in known if each in header), None) for known in _NAMES.values()]
    if None in read[:2]:
        return ()  # the first line is no header
    return tuple(each for each in header if each and each not in read)


def _is_plain(header: list[str]) -> bool:
    """Return whether a list has no more columns that count than path and label."""
    return tuple(header[:2]) in _PLAIN and not any(set(_NAMES[each]) & set(header) for each in _OPTIONAL)


def _json_rows(file: Path) -> Rows:
    """Return the lines of a file with an object on each, such as the ``clips.jsonl`` of a model.

    The range of a clip gives start and end; clips that were held out from training are the test split.

    Raises:
        InvalidDataset: it cannot be read, or a line is no object.
    """
    rows: Rows = []
    for number, line in enumerate(list_text(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if not isinstance(values, dict) or not {"label"} < set(values):
            raise InvalidDataset(
                f"{file}, line {number}: an object with path and label is wanted; found {line[:60]!r}"
            )
        rows.append((number, _json_row(values)))
    empty = dict.fromkeys((name for _, row in rows for name in row), "")
    return [(number, empty | row) for number, row in rows]


def _json_row(values: dict[str, Any]) -> dict[str, str]:
    """Return the values of a line as text, under the names of columns."""
    start, end = values.pop("range_s", None) or (None, None)
    row = {"start": start, "end": end} | {name.lower(): value for name, value in values.items()}
    if row.get("split") == "held_out":
        row["split"] = "test"
    return {
        name: "" if value is None else str(value)
        for name, value in row.items()
        if not isinstance(value, (list, dict))
    }


def _csv_rows(file: Path) -> tuple[str, Rows]:
    """Return the delimiter and the lines of a CSV, whose first line is a header.

    Spreadsheets also write semicolons or tabs between values: the header tells.
    """
    text = list_text(file)
    try:
        first = text.partition("\n")[0]
        delimiter = max(_DELIMITERS, key=first.count)
        lines = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
        header = [name.strip().lower() for name in next(lines, [])]
        empty = dict.fromkeys(header, "")
        rows = [(lines.line_num, [each.strip() for each in row]) for row in lines]
    except csv.Error as error:
        raise InvalidDataset(f"{file} is neither a folder nor a list: {error}") from None
    if set(_NAMES["label"]) & set(header) and set(_NAMES["path"]) & set(header):
        for number, row in rows:
            if any(row[len(header) :]):
                raise InvalidDataset(
                    f"{file}, line {number}: has {len(row)} values, but the header has {len(header)}; a "
                    f"value with {delimiter!r} inside stands in double quotes"
                )
    found = [(number, empty | dict(zip(header, row, strict=False))) for number, row in rows]
    return delimiter, found or [(1, empty)]


def labels_after_paths(
    file: Path, videos: Iterable[LabelledVideo], divider: str
) -> tuple[LabelledVideo, ...]:
    """Return videos with all numbers that follow their paths as labels, with ``divider`` between them.

    mmaction2 writes ``path 1 3 5`` for a video with several labels (its VideoDataset with multi_class). Other
    lists have the number of frames before the label, so that two numbers on each line are refused.

    Raises:
        InvalidDataset: the lines may mean two things, or name folders of frames.
    """
    listed = tuple(videos)
    found = [_numbers_after_path(file, video) for video in listed]
    if not any(numbers for _, numbers in found):
        _check_frame_folders(file, listed)
        return tuple(video for video, _ in found)
    for video, numbers in found:
        if numbers and os.path.isdir(video.video):
            raise InvalidDataset(
                f"{file}: {video.name} is a folder, followed by numbers: tubelet reads videos, no folders of "
                "frames"
            )
    if all(len(numbers) == 1 for _, numbers in found):
        video, numbers = found[0]
        raise InvalidDataset(
            f"{file}: each line has two numbers, such as {numbers[0]} {video.label} after {video.name}: they "
            "may be frames and label, or two labels; write a CSV, with path,label as the first line, and "
            f"{divider!r} between labels"
        )
    return tuple(
        replace(video, label=divider.join(dict.fromkeys((*numbers, video.label)))) for video, numbers in found
    )


def _check_frame_folders(file: Path, videos: Sequence[LabelledVideo]) -> None:
    """Refuse a list with two numbers on each line after paths that do not exist.

    Raises:
        InvalidDataset: it is one.
    """
    first = next(iter(videos))
    if all(
        _TWO_WORDS.fullmatch(each.name) and each.label.isdigit() and not os.path.exists(each.video)
        for each in videos
    ):
        raise InvalidDataset(
            f"{file}: each line has two numbers, such as {first.name} {first.label}, and there are no such "
            "files: tubelet reads videos, no folders of frames; write a CSV of videos with path,label as the "
            "first line"
        )


def _numbers_after_path(file: Path, video: LabelledVideo) -> tuple[LabelledVideo, list[str]]:
    """Return a video without the numbers after its path, if only then its path exists; and these numbers."""
    path, numbers = video.name, []
    while not os.path.exists(file.parent / path):
        shorter, _, last = path.rpartition(" ")
        if not shorter or not video.label.isdigit() or not last.isdigit():
            return video, []
        path, numbers = shorter.rstrip(), [last, *numbers]
    return replace(video, name=path, video=str(file.parent / path)), numbers
