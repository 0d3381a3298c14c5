"""A Parquet file of embeddings as data: clips with a label, and their vectors in the order of the rows.

N vectors of all clips, D numbers in each.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path, PurePath
from statistics import median

import numpy as np
from numpy.typing import NDArray

from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.evaluation.parquet_list import PARQUET, UnreadableTable, parquet_rows
from tubelet.service.cli.train.data.clips import (
    DIVIDER,
    TEST,
    Clip,
    check_splits,
    check_text,
    clean_label,
    split_of,
)
from tubelet.service.cli.train.vectors.vector_column import read_column, vector_column
from tubelet.service.report.text import decodable

_ID_NAMES = ("id", "video", "path", "file")
_LENGTH_ONE = 2e-3  # from 1, at most, are lengths that were made 1, in float16 too

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Maker:
    """The model that computed vectors, as their file names it; ``level`` is unit, window or video."""

    model: str
    version: str
    fingerprint: str
    level: str


@dataclass(frozen=True, slots=True)
class VectorTable:
    """Clips and their vectors, (n, D) by the clip's name, in the order of time.

    ``step_s`` is the median time range of a vector, seconds; None where the file has no times. ``maker`` is
    None where tubelet did not write them, or several models.
    """

    clips: tuple[Clip, ...]
    vectors: dict[str, NDArray[np.float32]] = field(repr=False)
    step_s: float | None
    maker: Maker | None
    are_normalised: bool
    has_views: bool


def has_vectors(data: Path) -> bool:
    """Whether ``data`` is a Parquet file with a column of vectors."""
    if data.suffix.lower() != PARQUET or not data.is_file():
        return False
    return vector_column(data) is not None


def read_vectors(file: Path) -> VectorTable:
    """Read a Parquet file with a row for each vector, or for several: id, label, group, split and vector.

    Rows of one id are one clip; where their labels differ, rows that follow each other with one label are.
    They follow each other in the order of their starts where the file has them, else as in the file.
    ``classify --embeddings`` writes video instead of id. Without a column label, the label is the folder that
    the video lies in.

    Raises:
        InvalidDataset: a column is missing, vectors differ in length or are not finite, or as ``read_clips``.
    """
    try:
        rows = parquet_rows(file)
        vectors, row_numbers, level = read_column(file)
    except (OSError, UnreadableTable) as error:
        raise InvalidDataset(f"{file} cannot be read: {error}") from None
    if not rows:
        raise InvalidDataset(f"{file} has columns, but no rows")
    id_name = next((name for name in _ID_NAMES if name in rows[0]), None)
    if id_name is None:
        raise InvalidDataset(f"{file} has no column id; it has {', '.join(rows[0])}")
    rows = [
        {
            **row,
            "id": row[id_name],
            "label": _label_of(f"{file}, row {number}", row, row[id_name]),
            "start_s": _seconds(f"{file}, row {number}", row, "start"),
            "end_s": _seconds(f"{file}, row {number}", row, "end"),
        }
        for number, row in enumerate(rows, 1)
    ]
    rows = [rows[number] for number in row_numbers]
    is_multilabel = any(DIVIDER in row["label"] for row in rows)
    clips: list[Clip] = []
    found: dict[str, NDArray[np.float32]] = {}
    for numbers, is_part in _runs(rows):
        name = _name(rows, numbers, is_part=is_part)
        clip = _clip(f"{file}: {name}", [rows[number] for number in numbers], is_part, is_multilabel)
        clips.append(replace(clip, name=name))
        found[name] = vectors[numbers]
    check_text(file, tuple(clips))
    check_splits(file, tuple(clips))
    lengths = np.linalg.norm(vectors, axis=1)
    return VectorTable(
        tuple(clips),
        found,
        _step_s(rows),
        _maker(rows, level),
        bool((np.abs(lengths - 1) < _LENGTH_ONE).all()),
        len({row.get("view", "") for row in rows}) > 1,
    )


def _label_of(where: str, row: Row, name: str) -> str:
    """Return the label of a row.

    Raises:
        InvalidDataset: there is none.
    """
    label = row["label"] if "label" in row else PurePath(name).parent.name
    if not name or not ("label" in row or label):
        raise InvalidDataset(
            f"{where}: an id and a label are wanted; without a column label, it is the folder of the video; "
            f"found {name!r}"
        )
    return label


def _seconds(where: str, row: Row, name: str) -> str:
    """Return the ``start`` or ``end`` of a row, seconds; "" where it has none.

    Raises:
        InvalidDataset: it is no number.
    """
    text = row.get(f"{name}_s") or row.get(name, "")
    try:
        if text and not math.isfinite(float(text)):
            raise ValueError
    except ValueError:
        raise InvalidDataset(f"{where}: {name} is in seconds; found {text!r}") from None
    return text


def _runs(rows: Sequence[Row]) -> Iterator[tuple[list[int], bool]]:
    """Yield the numbers of each clip's rows, and whether the clip is a part of what its id names."""
    of_id: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        of_id.setdefault(row["id"], []).append(number)
    for numbers in of_id.values():
        if all(rows[number]["start_s"] for number in numbers):
            numbers.sort(key=lambda number: float(rows[number]["start_s"]))
        runs = [list(run) for _, run in groupby(numbers, key=lambda number: rows[number]["label"])]
        for run in runs:
            yield run, len(runs) > 1


def _name(rows: Sequence[Row], numbers: Sequence[int], *, is_part: bool) -> str:
    """Return the name of the clip of these rows."""
    first, last = rows[numbers[0]], rows[numbers[-1]]
    name = decodable(first["id"])
    if not is_part:
        return name
    if first["start_s"] and last["end_s"]:
        return f"{name} {float(first['start_s']):.12g}-{float(last['end_s']):.12g} s"
    return f"{name}, rows {numbers[0] + 1} to {numbers[-1] + 1}"


def _clip(where: str, rows: Sequence[Row], is_part: bool, is_multilabel: bool) -> Clip:
    """Make a clip of rows with one label; it has no video."""
    groups, splits = ({row.get(key, "") for row in rows} for key in ("group", "split"))
    if len(groups) > 1 or len(splits) > 1:
        raise InvalidDataset(f"{where} has rows of several groups or splits")
    is_test = split_of(where, splits.pop()) == TEST
    named = groups.pop()
    group = named or (decodable(rows[0]["id"]) if is_part else "")
    label = clean_label(rows[0]["label"], is_multilabel)
    is_grouped_by_video = is_part and not named
    return Clip(
        "", "", label, group, is_test, is_multilabel=is_multilabel, is_grouped_by_video=is_grouped_by_video
    )


def _step_s(rows: Sequence[Row]) -> float | None:
    """Return the median time range of a vector, seconds, if the rows have times."""
    if not all(row["start_s"] and row["end_s"] for row in rows):
        return None
    return median(float(row["end_s"]) - float(row["start_s"]) for row in rows)


def _maker(rows: Sequence[Row], level: str) -> Maker | None:
    """Return the one model that computed all vectors, if the rows name it."""
    makers = {tuple(row.get(key, "") for key in ("model", "version", "fingerprint")) for row in rows}
    model, version, fingerprint = makers.pop()
    return Maker(model, version, fingerprint, level) if fingerprint and level and not makers else None
