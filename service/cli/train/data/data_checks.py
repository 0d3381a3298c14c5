"""Checks of the data before training: duplicates, rare labels, labels that differ by case, short clips.

N clips, P thumbnails of a clip.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from einops import reduce
from numpy.typing import NDArray

from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.data.disjoint_sets import DisjointSets
from tubelet.service.report.text import counted

RARE = 10
"""Clips below which a label is rare: its accuracy can't be told from chance."""
NEAR = 3.0
"""Mean difference of all pixels of two clips' thumbnails, of 255, below which they are near duplicates."""

_NUMBERS = "all labels are numbers, and the model will answer with numbers: --labels FILE gives them names"
_NO_FIGURE = "no figure can tell whether the model knows the label or the scene; add clips of other scenes"
_MOST_SINGLE = 3  # labels that have a note each, or names in a note
_MOST_NAMED = 12  # labels in a note on many
_LARGE = 0.5  # of the clips, above which a scene is too large
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
    one_scene, rare = [], []
    for label, found in sorted(numbers.items()):
        if len({of_scene[number] for number in found}) < 2:
            one_scene.append(label)
        elif len(found) < RARE:
            rare.append(label)
    names = {label: tuple(clips[number].name for number in found) for label, found in numbers.items()}
    return [*findings, *_labels_of_one_scene(one_scene, names), *_rare_labels(rare, names)]


def _labels_of_one_scene(labels: Sequence[str], names: Mapping[str, tuple[str, ...]]) -> list[Finding]:
    """Say that labels have clips of one scene each; ``names`` has the clips of each label."""
    if len(labels) > _MOST_SINGLE:
        sentence = (
            f"{len(labels)} labels have clips of one scene each, {_with_counts(labels, names)}: they are "
            f"trained, but {_NO_FIGURE}, or leave the labels out"
        )
        return [Finding(sentence, tuple(clip for label in labels for clip in names[label]))]
    return [
        Finding(
            f"label {label!r} has {counted(len(names[label]), 'clip')}, all of one scene: it is trained, but "
            f"{_NO_FIGURE}, or leave the label out",
            names[label],
        )
        for label in labels
    ]


def _rare_labels(labels: Sequence[str], names: Mapping[str, tuple[str, ...]]) -> list[Finding]:
    """Say that labels are rare; ``names`` has the clips of each label."""
    if len(labels) > _MOST_SINGLE:
        sentence = (
            f"{len(labels)} labels are rare, with fewer than {RARE} clips: {_with_counts(labels, names)}"
        )
        return [Finding(sentence, tuple(clip for label in labels for clip in names[label]))]
    return [
        Finding(f"label {label!r} is rare: {counted(len(names[label]), 'clip')}", names[label])
        for label in labels
    ]


def _with_counts(labels: Sequence[str], names: Mapping[str, tuple[str, ...]]) -> str:
    """Name labels with their numbers of clips."""
    more = f" and {len(labels) - _MOST_NAMED} more" if len(labels) > _MOST_NAMED else ""
    return ", ".join(f"{label!r} ({len(names[label])})" for label in labels[:_MOST_NAMED]) + more


def check_left_out(clips: Sequence[Clip], kept: Sequence[Clip]) -> list[Finding]:
    """Find labels of ``clips`` of which none is ``kept``."""
    lost = {label for clip in clips for label in clip.labels} - {
        label for clip in kept for label in clip.labels
    }
    findings = []
    for label in sorted(lost):
        of_label = tuple(clip.name for clip in clips if label in clip.labels)
        findings.append(
            Finding(
                f"label {label!r} is lost: none of its {counted(len(of_label), 'clip')} can be decoded",
                of_label,
            )
        )
    return findings


def check_scenes(clips: Sequence[Clip], scenes: Iterable[int]) -> list[Finding]:
    """Find a scene that was found by pictures and has most of the clips."""
    numbered = [(clip, scene) for clip, scene in zip(clips, scenes, strict=True) if not clip.is_test]
    sizes = Counter(scene for clip, scene in numbered if not clip.group)
    if not sizes or len({scene for _, scene in numbered}) < 2:
        return []
    (largest, size), total = sizes.most_common(1)[0], len(numbered)
    if size <= _LARGE * total:
        return []
    sentence = (
        f"one scene has {size} of {counted(total, 'clip')}, since their pictures are alike: if they show "
        "several places, persons or recordings, name these in a list with a column group"
    )
    return [Finding(sentence, tuple(clip.name for clip, scene in numbered if scene == largest))]


def find_duplicates(
    clips: Sequence[Clip], digests: Mapping[str, str], thumbnails: NDArray[np.uint8]
) -> list[Finding]:
    """Find files with equal content, and clips with nearly equal thumbnails: (N, P, H, W, 3).

    ``digests`` has the hash of each video's file, by its path. Parts of one video are not compared: they are
    one scene. Those with other labels come first.
    """
    alike: defaultdict[tuple[str, tuple[float, float] | None], list[int]] = defaultdict(list)
    for number, clip in enumerate(clips):
        alike[digests[clip.video], clip.range_s].append(number)
    equal = [numbers for numbers in alike.values() if len(numbers) > 1]
    copies = [set(numbers) for numbers in equal]
    near = [
        numbers for numbers in _near(clips, thumbnails) if not any(set(numbers) <= each for each in copies)
    ]
    found = [(numbers, "the same content") for numbers in equal]
    found += [(numbers, "nearly the same pictures") for numbers in near]
    findings = [
        (_labels_text(clips, numbers), [clips[each].name for each in numbers], how) for numbers, how in found
    ]
    return [
        Finding(f"{_listed(names)} have {how}{labels}", tuple(names))
        for labels, names, how in sorted(findings, key=lambda each: not each[0])
    ]


def _near(clips: Sequence[Clip], thumbnails: NDArray[np.uint8]) -> list[list[int]]:
    """Return the numbers of clips with nearly equal thumbnails, directly or by a chain: (N, P, H, W, 3)."""
    # Means of cells never differ by more than their pixels do, and are far fewer to compare.
    cells = reduce(
        thumbnails.astype(np.float32), "n p (h a) (w b) c -> n (p h w c)", "mean", a=_CELL, b=_CELL
    )
    sets = DisjointSets(len(clips))
    for number, clip in enumerate(clips):
        near = number + 1 + np.flatnonzero(np.abs(cells[number + 1 :] - cells[number]).mean(axis=1) < NEAR)
        near = np.array([other for other in near.tolist() if clips[other].video != clip.video], np.int64)
        distances = np.abs(thumbnails[near].astype(np.float32) - thumbnails[number]).mean(axis=(1, 2, 3, 4))
        for other in near[distances < NEAR]:
            sets.join(int(other), number)
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for number in range(len(clips)):
        groups[sets.root(number)].append(number)
    return [numbers for numbers in groups.values() if len(numbers) > 1]


def _labels_text(clips: Sequence[Clip], numbers: Sequence[int]) -> str:
    """Return that clips have other labels; "" if they have the same."""
    if len({frozenset(clips[number].labels) for number in numbers}) < 2:
        return ""
    labels = sorted({clips[number].label for number in numbers})
    return f", but the labels {_listed([repr(label) for label in labels])}"


def _listed(names: Sequence[str]) -> str:
    """Join names; of many, join the first ones, and count the others."""
    if len(names) > _MOST_SINGLE:
        names = [*names[: _MOST_SINGLE - 1], f"{len(names) - _MOST_SINGLE + 1} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def check_test_split(clips: Sequence[Clip], scenes: Iterable[int]) -> list[Finding]:
    """Find clips of the test split that show a scene of the training clips."""
    numbered = list(zip(clips, scenes, strict=True))
    trained = {scene for clip, scene in numbered if not clip.is_test}
    known = tuple(clip.name for clip, scene in numbered if clip.is_test and scene in trained)
    if not known:
        return []
    sentence = (
        f"{counted(len(known), 'clip')} of the test split, {known[0]} for one, show scenes that are in "
        "training, too: the figures of the test split flatter the model"
    )
    return [Finding(sentence, known)]
