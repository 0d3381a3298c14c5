"""The clips to train on: videos or parts of videos with labels, scenes and splits."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from unicodedata import category

from tubelet.service.cli.evaluation.dataset import InvalidDataset, LabelledVideo, read_labelled
from tubelet.service.cli.train.data.clip_lists import clip_rows, labels_after_paths
from tubelet.service.report.text import decodable, printable
from tubelet.service.types.uri import is_uri

TEST = "test"
DIVIDER = ";"
"""Divides the labels of a clip in a list."""

VALIDATION = ("val", "validation")
_SPLITS = ("train", *VALIDATION, TEST)
_UNPRINTABLE = (
    "Cc",
    "Cs",
    "Zl",
    "Zp",
)  # control characters, bytes that are no UTF-8, line and paragraph ends
_JSON = ".json"


@dataclass(frozen=True, slots=True)
class Clip(LabelledVideo):
    """A labelled video, or the part ``range_s`` of one.

    ``group`` is its scene, "" where the data does not say; ``is_test`` holds it out of training. In a list
    ``is_multilabel``, ``label`` has any number of labels, divided by ``DIVIDER``. ``label_order`` has the
    labels of all classes in the order of their numbers, if a file names them. ``is_grouped_by_video``: the
    group is the video, since the data names none. ``is_validation`` is for levels that choose an epoch.
    """

    group: str = ""
    is_test: bool = False
    range_s: tuple[float, float] | None = None
    is_multilabel: bool = False
    label_order: tuple[str, ...] = field(default=(), repr=False)
    is_grouped_by_video: bool = False
    is_validation: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of the clip: one, or any number of them in a multi-label list."""
        return tuple(filter(None, self.label.split(DIVIDER))) if self.is_multilabel else (self.label,)

    @property
    def path(self) -> str:
        """The path of the video as in the data."""
        return self.name.removesuffix(_range_text(self.range_s))


def read_clips(data: Path) -> tuple[Clip, ...]:
    """Read clips from a folder of class folders, a list, or a CSV or Parquet file with more columns.

    It has the columns path and label. More columns are start and end, in seconds, group, and split: train,
    val or test. Several parts of one video are one scene, unless the data names groups. If a label of a list
    has a semicolon, all its clips have any number of labels, divided by semicolons.

    Raises:
        InvalidDataset: a video is at a URI, or as ``read_any_clips``.
    """
    clips = read_any_clips(data)
    for clip in clips:
        if is_uri(clip.video):
            raise InvalidDataset(
                f"{data} names the URI {clip.video}: training reads files, download it first"
            )
    return clips


def read_any_clips(data: Path) -> tuple[Clip, ...]:
    """Read clips as ``read_clips``, of files and URIs.

    Raises:
        InvalidDataset: the data cannot be read; a value is not allowed; a clip or a group is in training and
            in the test; parts of a video overlap and have different labels.
    """
    if data.is_dir():
        clips = tuple(Clip(decodable(each.name), each.video, each.label) for each in read_labelled(data))
    else:
        clips = _read_list(data)
    check_text(data, clips)
    check_splits(data, clips)
    _check_parts(data, clips)
    return clips


def labels_of(clips: Iterable[Clip]) -> list[str]:
    """Return the distinct labels of clips: in the order of classes where a file names them, else sorted."""
    distinct: set[str] = set()
    order: tuple[str, ...] = ()
    for clip in clips:
        distinct.update(clip.labels)
        order = clip.label_order
    return [label for label in order if label in distinct] if order else sort_labels(distinct)


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Sort distinct labels: by value if all are numbers, as other projects number classes, else as text."""
    distinct = set(labels)
    if all(label.isascii() and label.isdigit() for label in distinct):
        return sorted(distinct, key=lambda label: (int(label), label))
    return sorted(distinct)


def _read_list(file: Path) -> tuple[Clip, ...]:
    """Read clips from a list, with or without more columns.

    Raises:
        InvalidDataset: as ``read_clips``.
    """
    if file.suffix.lower() == _JSON:
        raise InvalidDataset(
            f"{file} is JSON, which is not read: write a CSV with the columns path,label and, for parts of "
            "videos, start,end in seconds"
        )
    if (rows := clip_rows(file)) is None:
        listed = labels_after_paths(file, read_labelled(file), DIVIDER)
        is_multilabel = any(DIVIDER in each.label for each in listed)
        return tuple(
            Clip(
                decodable(each.name),
                each.video,
                clean_label(each.label, is_multilabel),
                is_multilabel=is_multilabel,
            )
            for each in listed
        )
    if not rows:
        raise InvalidDataset(f"{file} has a header, but names no videos")
    is_multilabel = any(DIVIDER in row["label"] for _, row in rows)
    return tuple(_clip(f"{file}, line {number}", file.parent, row, is_multilabel) for number, row in rows)


def clean_label(text: str, is_multilabel: bool) -> str:
    """Return the label of a clip as it is, or its labels without blanks around them, each once."""
    if not is_multilabel:
        return text
    return DIVIDER.join(dict.fromkeys(filter(None, map(str.strip, text.split(DIVIDER)))))


def _clip(where: str, folder: Path, row: Mapping[str, str], is_multilabel: bool) -> Clip:
    """Make a clip of one line of a list with more columns; paths are relative to ``folder``."""
    path, label = row["path"], row["label"]
    if not path or not (label or is_multilabel):
        raise InvalidDataset(f"{where}: a path and a label are wanted; found {path!r} and {label!r}")
    split = split_of(where, row.get("split", ""))
    range_s = _range(where, row.get("start", ""), row.get("end", ""))
    name = path + _range_text(range_s)
    video = path if is_uri(path) else os.path.normpath(folder / path)
    named = row.get("group", "")
    return Clip(
        decodable(name),
        video,
        clean_label(label, is_multilabel),
        named or ("" if range_s is None else path),
        split == TEST,
        range_s,
        is_multilabel,
        is_grouped_by_video=not named and range_s is not None,
        is_validation=split in VALIDATION,
    )


def _range_text(range_s: tuple[float, float] | None) -> str:
    """Return what is added to the path of a video to name a part of it."""
    return "" if range_s is None else f" {range_s[0]:.12g}-{range_s[1]:.12g} s"


def split_of(where: str, text: str) -> str:
    """Return the split that ``text`` names, in lower case; "" is no split.

    Raises:
        InvalidDataset: it names none.
    """
    split = text.lower()
    if split and split not in _SPLITS:
        raise InvalidDataset(f"{where}: split must be one of {', '.join(_SPLITS)}; found {split!r}")
    return split


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


def check_text(file: Path, clips: tuple[Clip, ...]) -> None:
    """Refuse what cannot be the path of a file, and labels that are missing or cannot be printed."""
    for clip in clips:
        if "\0" in clip.video:
            raise InvalidDataset(f"{file} names {clip.name!r}, which is no path of a file")
        if not clip.label and not clip.is_multilabel:
            raise InvalidDataset(f"{file}: the clip {printable(clip.name)} has no label")
        if any(category(each) in _UNPRINTABLE for each in clip.label):
            raise InvalidDataset(
                f"{file}: the label '{printable(clip.label)}' has characters that cannot be printed: a label "
                "is one line of UTF-8 without control characters"
            )


def check_splits(file: Path, clips: tuple[Clip, ...]) -> None:
    """Refuse a clip, a group or a video that is in training and in the test."""
    splits: dict[str, bool] = {}
    names: dict[str, str] = {}
    for clip in clips:
        for key, name in ((clip.group, clip.group), (clip.video, clip.name)):
            if key and splits.setdefault(key, clip.is_test) != clip.is_test:
                also = "" if clip.range_s is None else "; all parts of a video are in one split"
                known = printable(names.get(key, name))
                raise InvalidDataset(f"{file}: {known} is both in training and in the test split{also}")
            names.setdefault(key, name)


def _check_parts(file: Path, clips: tuple[Clip, ...]) -> None:
    """Refuse a clip that is named twice, and parts of a video that overlap and have different labels."""
    known: set[tuple[str, float, float]] = set()
    for clip in clips:
        if (key := (clip.video, *_part(clip))) in known:
            raise InvalidDataset(f"{file} names {printable(clip.name)} twice")
        known.add(key)
    for one, other in _overlapping(clips):
        if one.label != other.label and not one.is_multilabel:
            raise InvalidDataset(
                f"{file}: {printable(one.name)} and {printable(other.name)} overlap, but have the labels "
                f"{one.label!r} and {other.label!r}; a part with both is labelled "
                f"{one.label}{DIVIDER}{other.label}"
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
