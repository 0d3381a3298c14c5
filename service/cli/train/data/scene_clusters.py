"""Scenes of clips, found by their pictures; folds that keep scenes apart; what the background alone tells.

A clip's picture is the median of its thumbnails, which shows the background where the camera stands still.
N clips, P thumbnails of a clip, K folds.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tubelet.service.cli.train.data.disjoint_sets import DisjointSets

SAME_SCENE = 0.88
"""From this correlation of their pictures' brightness on, two clips show one scene."""
_BLOCK = 512  # clips that are compared with all others at a time

Pictures = NDArray[np.uint8]
"""Thumbnails of clips: (N, P, H, W, 3)."""


def median_pictures(thumbnails: Pictures) -> NDArray[np.float32]:
    """Return the median picture of each clip: (N, P, H, W, 3) -> (N, H, W, 3)."""
    return np.median(thumbnails, axis=1).astype(np.float32)


def find_scenes(pictures: NDArray[np.float32], groups: Sequence[str]) -> NDArray[np.int64]:
    """Number the scene of each clip: (N, H, W, 3), N groups -> (N,).

    Clips of one group are one scene. Clips without a group, "", are one scene with all other such clips whose
    pictures correlate by ``SAME_SCENE`` or more, directly or by a chain of others.
    """
    sets = DisjointSets(len(groups))
    first: dict[str, int] = {}
    for clip, group in enumerate(groups):
        if group:
            sets.join(clip, first.setdefault(group, clip))
    free = np.flatnonzero([not group for group in groups])
    normalised = _normalised(pictures[free])
    for start in range(0, len(free), _BLOCK):
        alike = normalised[start : start + _BLOCK] @ normalised.T >= SAME_SCENE
        for one, other in zip(*np.nonzero(alike), strict=True):
            sets.join(int(free[start + one]), int(free[other]))
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(sets.root(clip), len(numbers)) for clip in range(len(groups))])


def scene_folds(
    scenes: Sequence[int], labels: Sequence[str] | Sequence[tuple[str, ...]], count: int
) -> NDArray[np.int64]:
    """Number the fold of each clip, 0 to ``count`` - 1, so that each scene is in one fold: -> (N,).

    A clip has one label, or any number of them; none counts as a label, too. Each fold gets
    about as many clips of each label. The result depends on the clips and their order alone.
    """
    several = [(each,) if isinstance(each, str) else each or ("",) for each in labels]
    names = sorted({label for each in several for label in each})
    clips_of: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for scene, each in zip(scenes, several, strict=True):
        clips_of[scene].update(each)
    totals = np.zeros((count, len(names)))
    fold_of: dict[int, int] = {}
    for scene, counts in sorted(clips_of.items(), key=lambda item: -item[1].total()):
        added = np.array([counts[name] for name in names])
        # The fold where the squares of the totals grow least is the one that lacks these labels most.
        growth = ((totals + added) ** 2 - totals**2).sum(axis=1)
        fold = min(range(count), key=lambda each: (growth[each], totals[each].sum()))
        fold_of[scene] = fold
        totals[fold] += added
    return np.array([fold_of[scene] for scene in scenes])


def background_accuracy(
    pictures: NDArray[np.float32], labels: Sequence[tuple[str, ...]], apart: Sequence[int] | None
) -> float:
    """Return the share of clips whose nearest other picture has their label; 0 if there is no other.

    Where clips have any number of labels, it is the mean overlap: labels of both clips, of those of either.
    With ``apart``, the scene of each clip, only pictures of other scenes count. Where the accuracy is much
    higher without, a split by clip would measure how well a model recognises scenes.
    """
    flat = pictures.reshape(len(pictures), -1)
    squares = (flat**2).sum(axis=1)
    numbers = np.arange(len(flat)) if apart is None else np.asarray(apart)
    right = 0.0
    for clip in range(len(flat)):
        distances = squares - 2 * flat @ flat[clip]
        distances[numbers == numbers[clip]] = np.inf
        nearest = int(distances.argmin())
        if np.isfinite(distances[nearest]):
            right += _overlap(set(labels[nearest]), set(labels[clip]))
    return right / len(flat)


def _overlap(one: set[str], other: set[str]) -> float:
    """Return how many labels two clips share, of those that either has; 1 if none has any."""
    return len(one & other) / len(one | other) if one | other else 1.0


def _normalised(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return brightness with mean 0 and length 1, so that products are correlations: -> (N, H W).

    A picture of one colour correlates with none.
    """
    _, height, width, _ = pictures.shape
    brightness = pictures.mean(axis=-1).reshape(len(pictures), height * width)
    brightness = brightness - brightness.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(brightness, axis=1, keepdims=True)
    return np.divide(brightness, lengths, out=np.zeros_like(brightness), where=lengths > 1)
