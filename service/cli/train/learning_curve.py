"""The accuracy of a probe by the share of the clips that it is trained on, which shows if more data helps.

W windows, K classes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tubelet.models.training.probe_fit import ProbeData, estimate, mean_by_clip
from tubelet.models.training.probes import in_other_folds
from tubelet.service.cli.evaluation.measures import Interval, wilson_interval

SHARES = (0.25, 0.5, 0.75, 1.0)
_SEED = 20261130


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a probe is worth that is trained on a ``share`` of the clips of each label.

    ``clips`` is the number of them, as a mean over the parts of the scenes that are left out in turn.
    """

    share: float
    clips: int
    accuracy: float
    interval: Interval


def learning_curve(data: ProbeData, scenes: NDArray[np.int64]) -> tuple[CurvePoint, ...]:
    """Train on growing shares of the clips, and measure on the same clips of unknown scenes each time.

    ``scenes`` has the scene of each clip by its number. Shares grow scene by scene: a larger share has all
    clips of a smaller one. A share that is too small to choose and train on is left out.
    """
    known = in_other_folds(data.labels, data.folds)
    points = []
    for share in SHARES:
        kept = first_clips(data, scenes, share)
        if not _is_enough(data, kept):
            continue
        logits, _ = estimate(data, kept)
        means, numbers = mean_by_clip(logits[known], data.clips[known])
        labels = dict(zip(data.clips.tolist(), data.labels.tolist(), strict=True))
        truth = torch.tensor([labels[number] for number in numbers.tolist()])
        right = int((means.argmax(dim=1) == truth).sum())
        clips = np.mean(
            [len(data.clips[kept & (data.folds != fold)].unique()) for fold in data.folds.unique()]
        )
        points.append(
            CurvePoint(share, round(float(clips)), right / len(truth), wilson_interval(right, len(truth)))
        )
    return tuple(points)


def first_clips(data: ProbeData, scenes: NDArray[np.int64], share: float) -> Tensor:
    """Choose a share of the clips of each label, scene by scene in an order drawn once: -> (W,) bool."""
    order = np.random.default_rng(_SEED).permutation(int(scenes.max()) + 1)
    kept: set[int] = set()
    for label in data.labels.unique():
        clips = sorted(
            data.clips[data.labels == label].unique().tolist(), key=lambda clip: (order[scenes[clip]], clip)
        )
        kept |= set(clips[: math.ceil(share * len(clips))])
    return torch.tensor([clip in kept for clip in data.clips.tolist()])


def _is_enough(data: ProbeData, kept: Tensor) -> bool:
    """Return whether two labels and two parts of the scenes are left, whichever part is left out."""
    for fold in data.folds.unique():
        rest = kept & (data.folds != fold)
        if len(data.labels[rest].unique()) < 2 or len(data.folds[rest].unique()) < 2:
            return False
    return True
