"""The clips to train on: videos or parts of videos with labels, scenes and splits."""

import csv
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from tubelet.service.cli.evaluation.dataset import InvalidDataset, LabelledVideo, read_labelled
from tubelet.service.cli.evaluation.parquet_list import PARQUET, UnreadableTable, parquet_rows
from tubelet.service.types.uri import is_uri

TEST = "test"
_SPLITS = ("train", "val", "validation", TEST)
_PATH_NAMES = ("path", "file", "video")
_OPTIONAL = ("start", "end", "group", "split")


@dataclass(frozen=True, slots=True)
class Clip(LabelledVideo):
    """A labelled video, or the part ``range_s`` of one.

    ``group`` is its scene, "" where the data does not say; ``is_test`` holds it out of training.
    """

    group: str = ""
    is_test: bool = False
    range_s: tuple[float, float] | None = None


def read_clips(data: Path) -> tuple[Clip, ...]:
    """Read clips from a folder of class folders, a list, or a CSV or Parquet file with more columns.

    It has the columns path and label. More columns are start and end, in seconds, group, and split: train,
    val or test. Several parts of one video are one scene, unless the data names groups.

    Raises:
        InvalidDataset: the data cannot be read; a value is not allowed; a video is at a URI; parts of a video
            overlap and have different labels; a group is in training and in the test.
    """
    rows = None if data.is_dir() else _rows(data)
    if rows is None:
        clips = tuple(Clip(each.name, each.video, each.label) for each in read_labelled(data))
        _check_paths(data, clips)
        return clips
    clips = tuple(_clip(data, number, row) for number, row in rows)
    if not clips:
        raise InvalidDataset(f"{data} has a header, but names no videos")
    _check_paths(data, clips)
    _check_parts(data, clips)
    _check_groups(data, clips)
    return clips


def _rows(file: Path) -> list[tuple[int, dict[str, str]]] | None:
    """Return the number and columns of each line of a list with optional columns; None for other lists."""
    if file.suffix.lower() == PARQUET:
        try:
            table = list(enumerate(parquet_rows(file), 1))
        except (OSError, UnreadableTable):
            return None  # whoever reads lists without these columns says why
    else:
        table = _csv_rows(file)
    header = list(table[0][1]) if table else []
    if "label" not in header or not set(header) & set(_OPTIONAL):
        return None
    path = next((name for name in _PATH_NAMES if name in header), None)
    if path is None:
        raise InvalidDataset(f"{file}: the header has no column path; it has {', '.join(header)}")
    return [(number, row | {"path": row[path]}) for number, row in table if any(row.values())]


def _csv_rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the number and the columns of each line of a CSV, whose first line is a header."""
    try:
        lines = csv.reader(StringIO(file.read_bytes().decode("utf-8-sig"), newline=""))
        header = [name.strip().lower() for name in next(lines, [])]
        empty = dict.fromkeys(header, "")
        rows = [
            (lines.line_num, empty | dict(zip(header, map(str.strip, row), strict=False))) for row in lines
        ]
    except OSError as error:
        raise InvalidDataset(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataset(f"{file} is neither a folder nor a list: {error}") from None
    return rows or [(1, empty)]


def _clip(file: Path, number: int, row: Mapping[str, str]) -> Clip:
    """Make a clip of one line of a CSV."""
    where, path, label = f"{file}, line {number}", row["path"], row.get("label", "")
    if not path or not label:
        raise InvalidDataset(f"{where}: a path and a label are wanted; found {path!r} and {label!r}")
    split = row.get("split", "").lower()
    if split and split not in _SPLITS:
        raise InvalidDataset(f"{where}: split must be one of {', '.join(_SPLITS)}; found {split!r}")
    range_s = _range(where, row.get("start", ""), row.get("end", ""))
    name = path if range_s is None else f"{path} {range_s[0]:.12g}-{range_s[1]:.12g} s"
    video = path if is_uri(path) else os.path.normpath(file.parent / path)
    group = row.get("group", "") or ("" if range_s is None else path)
    return Clip(name, video, label, group, split == TEST, range_s)


def _range(where: str, start: str, end: str) -> tuple[float, float] | None:
    """Parse the start and end of a part, seconds; an empty start is 0, an empty end that of the video."""
    if not start and not end:
        return None
    try:
        found = (float(start or 0), float(end or math.inf))
    except ValueError:
        raise InvalidDataset(f"{where}: start and end are seconds; found {start!r} and {end!r}") from None
    if not 0 <= found[0] < found[1]:
        raise InvalidDataset(f"{where}: a part must end after its start; found {start!r} to {end!r}")
    return found


def _check_paths(file: Path, clips: tuple[Clip, ...]) -> None:
    """Refuse what cannot be the path of a file."""
    for clip in clips:
        if is_uri(clip.video):
            raise InvalidDataset(
                f"{file} names the URI {clip.video}: training reads files, download it first"
            )
        if "\0" in clip.video:
            raise InvalidDataset(f"{file} names {clip.name!r}, which is no path of a file")


def _check_parts(file: Path, clips: tuple[Clip, ...]) -> None:
    """Refuse a clip that is named twice, and parts of a video that overlap and have different labels."""
    known: set[tuple[str, float, float]] = set()
    for clip in clips:
        if (key := (clip.video, *_part(clip))) in known:
            raise InvalidDataset(f"{file} names {clip.name} twice")
        known.add(key)
    for one, other in _overlapping(clips):
        if one.label != other.label:
            raise InvalidDataset(
                f"{file}: {one.name} and {other.name} overlap, but have the labels {one.label!r} and "
                f"{other.label!r}"
            )


def _overlapping(clips: tuple[Clip, ...]) -> Iterator[tuple[Clip, Clip]]:
    """Yield each part of a video with that earlier part of it which overlaps and ends last."""
    ordered = sorted(clips, key=lambda each: (each.video, *_part(each)))
    for _, parts in groupby(ordered, attrgetter("video")):
        last: Clip | None = None
        for part in parts:
            if last is not None and _part(part)[0] < _part(last)[1]:
                yield last, part
            last = part if last is None else max(last, part, key=lambda each: _part(each)[1])


def _part(clip: Clip) -> tuple[float, float]:
    """Return the start and end of a clip in its video, seconds; the end of a whole video is infinite."""
    return clip.range_s or (0.0, math.inf)


def _check_groups(file: Path, clips: tuple[Clip, ...]) -> None:
    """Refuse a group, or a video, that is in training and in the test."""
    splits: dict[str, bool] = {}
    for clip in clips:
        for name in filter(None, (clip.group, clip.video)):
            if splits.setdefault(name, clip.is_test) != clip.is_test:
                raise InvalidDataset(f"{file}: {name} is both in training and in the test split")
