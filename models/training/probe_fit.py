"""Training of a probe and an honest estimate of its accuracy: nested cross-validation, scenes kept apart.

C clips, W windows of all clips, S units in a window, D width of a unit's embedding, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tubelet.models.training.probes import Choice, choose_linear, few_threads, fit_linear

DECAYS = (0.03, 0.3, 3.0, 30.0)


@dataclass(frozen=True, slots=True)
class ProbeData:
    """The vectors of windows, (W, E) by name, and of each window its label, its clip and its fold, (W,).

    Labels are classes, or (W, K) of 0 and 1 where a window has several.
    """

    vectors: Mapping[str, Tensor] = field(repr=False)
    labels: Tensor
    clips: Tensor
    folds: Tensor
    num_classes: int

    def part(self, chosen: Tensor) -> "ProbeData":
        """Return the windows that are ``chosen``, (W,) bool."""
        vectors = {name: each[chosen] for name, each in self.vectors.items()}
        return ProbeData(
            vectors, self.labels[chosen], self.clips[chosen], self.folds[chosen], self.num_classes
        )


def choose(data: ProbeData) -> Choice:
    """Choose vectors and decay by cross-validation over the folds of ``data``."""
    with few_threads(max(each.numel() for each in data.vectors.values())):
        return choose_linear(data.vectors, data.labels, data.num_classes, data.folds, DECAYS)


def estimate(data: ProbeData, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return each window's logits, (W, K), by a probe that does not know its fold: calibrated, and as fitted.

    Vectors, decay and temperature are chosen on the other folds alone, so that the choice is measured, too.
    Only the windows ``kept``, (W,) bool, are trained on; None stands for all.
    """
    calibrated, fitted = (torch.zeros(len(data.labels), data.num_classes) for _ in range(2))
    for fold in data.folds.unique():
        inside = data.folds == fold
        others = data.part(~inside if kept is None else ~inside & kept)
        choice = choose(others)
        probe = fit_linear(others.vectors[choice.vectors], others.labels, data.num_classes, choice.decay)
        fitted[inside] = probe(data.vectors[choice.vectors][inside].float())
        calibrated[inside] = fitted[inside] / choice.temperature
    return calibrated, fitted


def mean_by_clip(logits: Tensor, clips: Tensor) -> tuple[Tensor, Tensor]:
    """Average the logits of each clip's windows: (W, K), (W,) -> (C, K), and the clips' numbers, (C,)."""
    numbers, inverse = clips.unique(return_inverse=True)
    total = torch.zeros(len(numbers), logits.shape[1]).index_add_(0, inverse, logits)
    return total / torch.bincount(inverse)[:, None], numbers


def labels_by_clip(labels: Tensor, clips: Tensor) -> Tensor:
    """Return the labels of each clip, whose windows have the same: (W,) or (W, K), (W,) -> (C,) or (C, K).

    Clips are in the order of ``mean_by_clip``.
    """
    numbers, inverse = clips.unique(return_inverse=True)
    last = torch.zeros(len(numbers), dtype=torch.int64).scatter_(0, inverse, torch.arange(len(clips)))
    return labels[last]
