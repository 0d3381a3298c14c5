"""What a probe is worth by the share of the clips that it is trained on, which shows if more data helps.

W windows, K classes.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tubelet.models.training.probe_fit import ProbeData, estimate, labels_by_clip, mean_by_clip
from tubelet.models.training.probes import in_other_folds
from tubelet.service.cli.evaluation.measures import Interval, wilson_interval
from tubelet.service.cli.evaluation.multilabel.label_report import mean_precision, mean_precision_interval
from tubelet.service.cli.train.report.multilabel_figures import clip_scores

SHARES = (0.25, 0.5, 0.75, 1.0)
_SEED = 20261130


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a probe is worth that is trained on a ``share`` of the clips of each label.

    ``clips`` is the number of them, as a mean over the parts of the scenes that are left out in turn.
    ``value`` is the accuracy; of independent labels, the mean average precision.
    """

    share: float
    clips: int
    value: float
    interval: Interval
    measure: Literal["accuracy", "mean average precision"] = "accuracy"

    def json(self) -> dict[str, Any]:
        """Return the object of the point, with its value under the name of what it is."""
        name = self.measure.replace(" ", "_")
        return {"share": self.share, "clips": self.clips, name: self.value, "interval": self.interval}


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
        clips = np.mean(
            [len(data.clips[kept & (data.folds != fold)].unique()) for fold in data.folds.unique()]
        )
        points.append(
            _point(share, round(float(clips)), logits[known], data.labels[known], data.clips[known])
        )
    return tuple(points)


def _point(share: float, count: int, logits: Tensor, labels: Tensor, clips: Tensor) -> CurvePoint:
    """Measure the answers of probes that were trained on ``count`` clips: (W, K), and labels and clips."""
    if labels.ndim == 2:
        scores, truth = clip_scores(logits, labels, clips)
        interval = mean_precision_interval(scores, truth)
        return CurvePoint(share, count, mean_precision(scores, truth), interval, "mean average precision")
    means, _ = mean_by_clip(logits, clips)
    truth = labels_by_clip(labels, clips)
    right = int((means.argmax(dim=1) == truth).sum())
    return CurvePoint(share, count, right / len(truth), wilson_interval(right, len(truth)))


def first_clips(data: ProbeData, scenes: NDArray[np.int64], share: float) -> Tensor:
    """Choose a share of the clips of each label, scene by scene in an order drawn once: -> (W,) bool.

    Where labels are independent, it is a share of all clips.
    """
    order = np.random.default_rng(_SEED).permutation(int(scenes.max()) + 1)
    kept: set[int] = set()
    several = data.labels.ndim == 2
    parts = [data.clips] if several else [data.clips[data.labels == each] for each in data.labels.unique()]
    for part in parts:
        clips = sorted(part.unique().tolist(), key=lambda clip: (order[scenes[clip]], clip))
        kept |= set(clips[: math.ceil(share * len(clips))])
    return torch.tensor([clip in kept for clip in data.clips.tolist()])


def _is_enough(data: ProbeData, kept: Tensor) -> bool:
    """Return whether two labels and two parts of the scenes are left, whichever part is left out.

    Of independent labels, one is enough that some windows have, and others do not.
    """
    for fold in data.folds.unique():
        rest = kept & (data.folds != fold)
        if len(data.labels[rest].unique(dim=0)) < 2 or len(data.folds[rest].unique()) < 2:
            return False
    return True
