"""Lists of clips as rows: CSVs and Parquet files with more columns, and paths followed by class numbers."""

import csv
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path

from tubelet.service.cli.evaluation.dataset import InvalidDataset, LabelledVideo
from tubelet.service.cli.evaluation.parquet_list import PARQUET, UnreadableTable, parquet_rows

_PATH_NAMES = ("path", "file", "video")
_OPTIONAL = ("start", "end", "group", "split")
_DELIMITERS = (",", ";", "\t")

Rows = list[tuple[int, dict[str, str]]]
"""The number of each line, and its values by the names of the columns, in lower case."""


def clip_rows(file: Path) -> Rows | None:
    """Return the lines of a list with more columns than path and label; None for other lists.

    Raises:
        InvalidDataset: it cannot be read, or has no column of paths; a line has more values than the header.
    """
    delimiter = ","
    if file.suffix.lower() == PARQUET:
        try:
            table = list(enumerate(parquet_rows(file), 1))
        except (OSError, UnreadableTable):
            return None  # whoever reads lists without these columns says why
    else:
        delimiter, table = _csv_rows(file)
    header = list(table[0][1]) if table else []
    is_plain = delimiter == "," and not set(header) & set(_OPTIONAL)
    if "label" not in header or is_plain:
        return None
    path = next((name for name in _PATH_NAMES if name in header), None)
    if path is None:
        raise InvalidDataset(f"{file}: the header has no column path; it has {', '.join(header)}")
    return [(number, row | {"path": row[path]}) for number, row in table if any(row.values())]


def _csv_rows(file: Path) -> tuple[str, Rows]:
    """Return the delimiter and the lines of a CSV, whose first line is a header.

    Spreadsheets also write semicolons or tabs between values: the header tells.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(_DELIMITERS, key=first.count)
        lines = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
        header = [name.strip().lower() for name in next(lines, [])]
        empty = dict.fromkeys(header, "")
        rows = [(lines.line_num, [each.strip() for each in row]) for row in lines]
    except OSError as error:
        raise InvalidDataset(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataset(f"{file} is neither a folder nor a list: {error}") from None
    if "label" in header:
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
    found = [_numbers_after_path(file, video) for video in videos]
    if not any(numbers for _, numbers in found):
        return tuple(video for video, _ in found)
    for video, numbers in found:
        if numbers and Path(video.video).is_dir():
            raise InvalidDataset(
                f"{file}: {video.name} is a folder, followed by numbers: tubelet reads videos, no folders of "
                "frames"
            )
    if all(len(numbers) == 1 for _, numbers in found):
        video, numbers = found[0]
        raise InvalidDataset(
            f"{file}: each line has two numbers, such as {numbers[0]} {video.label} after {video.name}: they "
            "may be frames and label, or two labels; write path,label as the first line, and "
            f"{divider!r} between labels"
        )
    return tuple(
        replace(video, label=divider.join(dict.fromkeys((*numbers, video.label)))) for video, numbers in found
    )


def _numbers_after_path(file: Path, video: LabelledVideo) -> tuple[LabelledVideo, list[str]]:
    """Return a video without the numbers after its path, if only then its path exists; and these numbers."""
    path, numbers = video.name, []
    while not (file.parent / path).exists():
        shorter, _, last = path.rpartition(" ")
        if not shorter or not video.label.isdigit() or not last.isdigit():
            return video, []
        path, numbers = shorter.rstrip(), [last, *numbers]
    return replace(video, name=path, video=str(file.parent / path)), numbers
