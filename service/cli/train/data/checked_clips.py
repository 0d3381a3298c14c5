"""Clips that were decoded and checked: their scenes, what stands out, and which labels can be trained."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.train.data.clips import Clip, labels_of
from tubelet.service.cli.train.data.data_checks import (
    Finding,
    check_labels,
    check_left_out,
    check_scenes,
    check_test_split,
    find_duplicates,
)
from tubelet.service.cli.train.data.scene_clusters import background_accuracy, find_scenes, median_pictures
from tubelet.service.cli.train.data.stretches import MIN_SCENES, with_stretches
from tubelet.service.cli.train.data.survey import Survey, survey_clips
from tubelet.service.config.config import DecodeConfig
from tubelet.service.report.text import counted, printable

notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
"""What people read while a model is trained, on standard error."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The clips that can be decoded, the number of each one's scene, and what the checks found.

    ``background`` is the accuracy of the nearest picture with scenes kept apart, and by clip; None where the
    data has no pictures.
    """

    survey: Survey
    scenes: NDArray[np.int64] = field(repr=False)
    findings: tuple[Finding, ...]
    background: tuple[float, float] | None


def check_clips(clips: Sequence[Clip], config: DecodeConfig) -> Checked:
    """Decode thumbnails of all clips, find scenes and duplicates, and say what stands out.

    Raises:
        InvalidDataset: no clip can be decoded.
    """
    with progress("checking", len(clips)) as advance:
        survey = survey_clips(clips, config, advance)
    if not survey.clips:
        name, reason = next(iter(survey.left_out.items()))
        raise InvalidDataset(f"none of the {len(clips)} clips can be decoded; {printable(name)}: {reason}")
    pictures = median_pictures(survey.thumbnails)
    scenes, stretched = with_stretches(
        survey.clips, find_scenes(pictures, [clip.group for clip in survey.clips])
    )
    labels = [clip.labels for clip in survey.clips]
    findings = (
        *stretched,
        *check_left_out(clips, survey.clips),
        *check_scenes(survey.clips, scenes.tolist()),
        *check_labels(survey.clips, scenes.tolist()),
        *check_test_split(survey.clips, scenes.tolist()),
        *find_duplicates(survey.clips, survey.digests, survey.thumbnails),
    )
    background = (
        background_accuracy(pictures, labels, scenes.tolist()),
        background_accuracy(pictures, labels, None),
    )
    return Checked(survey, scenes, findings, background)


def usable_labels(clips: Sequence[Clip], scenes: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the labels to train, sorted.

    Raises:
        InvalidDataset: there are too few scenes, or as ``labels_to_train``.
    """
    labels = labels_to_train(clips)
    trained = [number for number, clip in enumerate(clips) if not clip.is_test]
    if (count := len(set(scenes[trained].tolist()))) < MIN_SCENES:
        raise InvalidDataset(
            f"the clips show {counted(count, 'scene')}; at least {MIN_SCENES} are needed, to train, choose "
            "and measure on different ones. If there are more places, persons or recordings, name them in a "
            "list with the columns path, label and group"
        )
    scenes_of: defaultdict[str, set[int]] = defaultdict(set)
    for number in trained:
        for label in clips[number].labels:
            scenes_of[label].add(int(scenes[number]))
    if all(len(found) < 2 for found in scenes_of.values()):
        raise InvalidDataset(
            "the clips of each label show one scene, so that no figure could tell labels from scenes: add "
            "clips of other scenes, or name the scenes in a list with a column group"
        )
    return tuple(labels)


def labels_to_train(clips: Sequence[Clip]) -> list[str]:
    """Return the labels of the clips to train on, sorted.

    Raises:
        InvalidDataset: they are fewer than two, or one of a multi-label list; a label is in the test split
            alone.
    """
    trained = [clip for clip in clips if not clip.is_test]
    if not trained:
        raise InvalidDataset("all clips are in the test split: none is left to train on")
    labels, wanted = labels_of(trained), 1 if clips[0].is_multilabel else 2
    if len(labels) < wanted:
        which = "all clips" if len(trained) == len(clips) else "all clips that are not in the test split"
        have = f"the label {labels[0]!r}" if labels else "no label"
        raise InvalidDataset(f"{which} have {have}: at least {counted(wanted, 'label')} are needed")
    if unknown := {label for clip in clips for label in clip.labels} - set(labels):
        raise InvalidDataset(
            f"the label {min(unknown)!r} is in the test split alone: add clips of it to train on, or leave "
            "it out"
        )
    return labels


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error; what is yielded moves it on by one."""
    with Progress(
        "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=notes
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
