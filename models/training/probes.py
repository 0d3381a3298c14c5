"""Linear probes: regularised logistic regression on the vectors of windows, from a frozen spatial stage.

Alain and Bengio, arXiv 1610.01644. N windows, E width of a window's vector, K classes. Labels are
classes, (N,) int64, or independent of each other, (N, K) of 0 and 1 (multi-label).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.models.training.calibration import fit_temperature

_TINY = 1e-6  # smallest standard deviation; a feature that is always the same has none
_LBFGS_STEPS = 200
_WORTH_THREADS = 2_000_000  # numbers in the features of all windows


@contextmanager
def few_threads(numbers: int) -> Iterator[None]:
    """Compute on one thread where products are so small that threads wait for each other most of the time."""
    before = torch.get_num_threads()
    if numbers < _WORTH_THREADS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return a weight for each class, so that all classes together weigh the same: (N,) int64 -> (K,).

    A class without windows weighs nothing. The mean weight of a window is 1.
    """
    counts = torch.bincount(labels, minlength=num_classes).double()
    present = (counts > 0).sum()
    return torch.where(counts > 0, len(labels) / (present * counts.clamp(min=1)), 0)


def window_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return the weight of each window, (N,): classes weigh the same; of independent labels, windows do."""
    if labels.ndim == 1:
        return class_weights(labels, num_classes)[labels]
    return torch.ones(len(labels), dtype=torch.float64)


def window_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy of each window, (N,): of its class, or the mean over independent labels."""
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(dim=1)


def fit_linear(vectors: Tensor, labels: Tensor, num_classes: int, decay: float) -> nn.Linear:
    """Fit a linear probe: (N, E) float, and labels -> a layer (..., E) -> (..., K).

    It minimises the class-balanced cross entropy plus ``decay`` / 2 times the squared weights, over features
    of mean 0 and standard deviation 1. The layer takes the features as they are. The result does not depend
    on chance. The cross entropy of independent labels is their mean, not balanced, so that scores stay as
    frequent as labels are.
    """
    vectors = vectors.double()
    mean, std = vectors.mean(dim=0), vectors.std(dim=0, correction=0)
    scale = torch.where(std > _TINY, std, torch.inf)  # a constant feature gets no weight
    features = (vectors - mean) / scale
    # The weights lie in the span of the windows: with few windows, their coordinates there are fewer.
    basis = torch.linalg.qr(features.T).Q if len(vectors) < vectors.shape[1] else torch.eye(vectors.shape[1])
    basis = basis.double()
    features = features @ basis
    weight = torch.zeros(num_classes, basis.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    balance = window_weights(labels, num_classes)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=_LBFGS_STEPS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        errors = window_errors(F.linear(features, weight, bias), labels)
        total = (balance * errors).mean() + decay / 2 * weight.square().sum()
        total.backward()
        return total

    optimiser.step(loss)  # pyright: ignore[reportArgumentType]
    layer = nn.Linear(vectors.shape[1], num_classes)
    with torch.no_grad():
        unscaled = weight @ basis.T / scale
        layer.weight.copy_(unscaled)
        layer.bias.copy_(bias - unscaled @ mean)
    return layer.requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Choice:
    """The best of several probes: a linear one, on the vectors of a name with a ``decay``.

    With ``steps``, it is an attentive one that starts as the linear one. ``logits`` (N, K) are of windows by
    probes that were trained without their fold. ``temperature`` is fitted on them, and ``loss`` is their
    cross entropy at it, with all classes of equal weight. Windows whose label only their own fold has do not
    count for these two.
    """

    vectors: str
    decay: float
    temperature: float
    loss: float
    logits: Tensor = field(repr=False)
    steps: int = 0


def rank_linear(
    vectors: Mapping[str, Tensor], labels: Tensor, num_classes: int, folds: Tensor, decays: tuple[float, ...]
) -> list[Choice]:
    """Rank vectors, (N, E) by name, and decays by the loss in cross-validation, the best first.

    ``folds`` (N,) int64 numbers the part of each window; windows of one scene must be in one part.
    """
    choices = []
    for name, features in vectors.items():
        for decay in decays:
            logits = held_out_logits(features, labels, num_classes, folds, decay)
            choices.append(calibrated_choice(name, decay, logits, labels, folds))
    return sorted(choices, key=lambda each: each.loss)


def calibrated_choice(
    vectors: str, decay: float, logits: Tensor, labels: Tensor, folds: Tensor, steps: int = 0
) -> Choice:
    """Return a choice with the temperature and the loss of its held-out ``logits``, (N, K)."""
    known = in_other_folds(labels, folds)
    temperature = fit_temperature(logits[known], labels[known]) if known.any() else 1.0
    loss = held_out_losses(logits / temperature, labels, folds).sum().item() / len(labels)
    return Choice(vectors, decay, temperature, loss, logits, steps)


def held_out_losses(logits: Tensor, labels: Tensor, folds: Tensor) -> Tensor:
    """Return the weighted cross entropy of each window, (N,); 0 where only its own fold has its label."""
    balance = window_weights(labels, logits.shape[1])
    return balance * window_errors(logits, labels) * in_other_folds(labels, folds)


def in_other_folds(labels: Tensor, folds: Tensor) -> Tensor:
    """Return whether the label of each window is in another fold, too: (N,), (N,) -> (N,) bool.

    Where it is not, no probe that is trained without the window's fold can know it. Of windows with
    independent labels, all count.
    """
    if labels.ndim == 2:
        return torch.ones(len(labels), dtype=torch.bool)
    first = torch.full((int(labels.max()) + 1,), -1, dtype=torch.int64).scatter_(0, labels, folds)
    differs = torch.zeros(len(first), dtype=torch.bool)
    differs[labels[folds != first[labels]]] = True
    return differs[labels]


def held_out_logits(vectors: Tensor, labels: Tensor, num_classes: int, folds: Tensor, decay: float) -> Tensor:
    """Return the logits of each window by a probe that was trained on all other folds: -> (N, K) float32."""
    logits = torch.zeros(len(vectors), num_classes)
    for fold in folds.unique():
        inside = folds == fold
        probe = fit_linear(vectors[~inside], labels[~inside], num_classes, decay)
        logits[inside] = probe(vectors[inside].float())
    return logits
