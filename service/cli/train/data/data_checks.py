"""Checks of the data before training: duplicates, rare labels, labels that differ by case, short clips.

N clips, P thumbnails of a clip.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from einops import reduce
from numpy.typing import NDArray

from tubelet.service.cli.train.data.clips import Clip

RARE = 10
"""Clips below which a label is rare: its accuracy can't be told from chance."""
NEAR = 3.0
"""Mean difference of all pixels of two clips' thumbnails, of 255, below which they are near duplicates."""

_NUMBERS = "all labels are numbers, and the model will answer with numbers: --labels FILE gives them names"
_CELL = 8  # pixels along a side of a cell


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is suspicious about the data: a sentence, and the names of the clips."""

    sentence: str
    clips: tuple[str, ...] = ()


def check_labels(clips: Sequence[Clip], scenes: Iterable[int]) -> list[Finding]:
    """Find labels that are numbers, that differ by case or white space alone, rare ones, and of one scene."""
    findings = []
    spellings: defaultdict[str, set[str]] = defaultdict(set)
    numbers: defaultdict[str, list[int]] = defaultdict(list)  # of each label's clips
    for number, clip in enumerate(clips):
        for label in clip.labels:
            spellings[" ".join(label.lower().replace("_", " ").split())].add(label)
            numbers[label].append(number)
    if all(label.isascii() and label.isdigit() for label in numbers):
        findings.append(Finding(_NUMBERS))
    for same in spellings.values():
        if len(same) > 1:
            named = " and ".join(map(repr, sorted(same)))
            findings.append(Finding(f"the labels {named} differ by case or blanks alone, and are kept apart"))
    of_scene = list(scenes)
    for label, found in sorted(numbers.items()):
        of_label = tuple(clips[number].name for number in found)
        if len({of_scene[number] for number in found}) < 2:
            findings.append(
                Finding(
                    f"label {label!r} has {_clips(len(found))}, all of one scene: it is trained, but no "
                    "figure can tell whether the model knows the label or the scene; add clips of other "
                    "scenes, or leave the label out",
                    of_label,
                )
            )
        elif len(found) < RARE:
            findings.append(Finding(f"label {label!r} is rare: {_clips(len(found))}", of_label))
    return findings


def find_duplicates(
    clips: Sequence[Clip], digests: Mapping[str, str], thumbnails: NDArray[np.uint8]
) -> list[Finding]:
    """Find files with equal content, and clips with nearly equal thumbnails: (N, P, H, W, 3).

    ``digests`` has the hash of each video's file, by its path.
    """
    # Means of cells never differ by more than their pixels do, and are far fewer to compare.
    cells = reduce(
        thumbnails.astype(np.float32), "n p (h a) (w b) c -> n (p h w c)", "mean", a=_CELL, b=_CELL
    )
    findings = []
    for number, clip in enumerate(clips):
        near = number + 1 + np.flatnonzero(np.abs(cells[number + 1 :] - cells[number]).mean(axis=1) < NEAR)
        distances = np.abs(thumbnails[near].astype(np.float32) - thumbnails[number]).mean(axis=(1, 2, 3, 4))
        for other in near[distances < NEAR]:
            twin = clips[int(other)]
            is_equal = digests[clip.video] == digests[twin.video] and clip.range_s == twin.range_s
            how = "the same content" if is_equal else "nearly the same pictures"
            labels = (
                ""
                if set(clip.labels) == set(twin.labels)
                else f", but the labels {clip.label!r} and {twin.label!r}"
            )
            findings.append(
                Finding(f"{clip.name} and {twin.name} have {how}{labels}", (clip.name, twin.name))
            )
    return findings


def check_test_split(clips: Sequence[Clip], scenes: Iterable[int]) -> list[Finding]:
    """Find clips of the test split that show a scene of the training clips."""
    numbered = list(zip(clips, scenes, strict=True))
    trained = {scene for clip, scene in numbered if not clip.is_test}
    known = tuple(clip.name for clip, scene in numbered if clip.is_test and scene in trained)
    if not known:
        return []
    sentence = (
        f"{_clips(len(known))} of the test split, {known[0]} for one, show scenes that are in training, too: "
        "the figures of the test split flatter the model"
    )
    return [Finding(sentence, known)]


def _clips(count: int) -> str:
    """Format a number of clips."""
    return f"{count} clip" if count == 1 else f"{count} clips"
