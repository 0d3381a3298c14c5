"""Training of a probe and an honest estimate of its accuracy: nested cross-validation, scenes kept apart.

C clips, W windows of all clips, S units in a window, D width of a unit's embedding, K classes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor, nn

from tubelet.models.families.unit_pooling import AttentivePool, AttentivePooling
from tubelet.models.training.attentive_probe import STRIDE, AttentiveProbe, Units, train_attentive
from tubelet.models.training.loss_comparison import Comparison, compare_losses
from tubelet.models.training.probes import (
    Choice,
    calibrated_choice,
    few_threads,
    fit_linear,
    held_out_losses,
    rank_linear,
)

DECAYS = (0.03, 0.3, 3.0, 30.0)
ATTENTIVE: dict[str, AttentivePool] = {"mean": "attentive", "mean and change": "attentive_with_change"}
"""What an attentive probe attends to, by the vectors of the linear probe that it starts as."""
_FEWEST_SCENES = 12  # that tell how much of a difference is chance
_PATIENCE = 3  # attentive probes that may be no better than an earlier one, before training ends


@dataclass(frozen=True, slots=True)
class ProbeData:
    """The vectors of windows, (W, E) by name, and of each window its label, its clip and its fold, (W,).

    Labels are classes, or (W, K) of 0 and 1 where a window has several. Attentive probes need ``units``, and
    ``scenes`` (W,).
    """

    vectors: Mapping[str, Tensor] = field(repr=False)
    labels: Tensor
    clips: Tensor
    folds: Tensor
    num_classes: int
    units: Units | None = None
    scenes: Tensor | None = None

    @property
    def has_enough_scenes(self) -> bool:
        """Whether scenes tell how much of a difference of two probes is chance."""
        return self.scenes is not None and len(self.scenes.unique()) >= _FEWEST_SCENES

    def without_units(self) -> "ProbeData":
        """Return the same windows for linear probes alone."""
        return replace(self, units=None)

    def part(self, chosen: Tensor) -> "ProbeData":
        """Return the windows that are ``chosen``, (W,) bool."""
        return ProbeData(
            {name: each[chosen] for name, each in self.vectors.items()},
            self.labels[chosen],
            self.clips[chosen],
            self.folds[chosen],
            self.num_classes,
            None if self.units is None else self.units.part(chosen),
            None if self.scenes is None else self.scenes[chosen],
        )


@dataclass(frozen=True, slots=True)
class Probe:
    """A trained probe: a head on the vectors of a name, or on units that a ``pooling`` attends to."""

    vectors: str
    head: nn.Linear = field(repr=False)
    pooling: AttentivePooling | None = field(default=None, repr=False)

    @torch.no_grad()
    def logits(self, data: ProbeData) -> Tensor:
        """Classify windows: -> (W, K)."""
        if self.pooling is None:
            return self.head(data.vectors[self.vectors].float())
        assert data.units is not None
        return AttentiveProbe(self.pooling, self.head)(data.units)


def choose(data: ProbeData) -> Choice:
    """Choose a probe by cross-validation over the folds of ``data``; see ``compare``."""
    return compare(data)[0]


def compare(data: ProbeData) -> tuple[Choice, Comparison | None]:
    """Choose the best linear probe, or an attentive one that is better by more than the standard error.

    The comparison is None where there are no units to attend to.
    """
    with few_threads(_numbers(data)):
        ranked = rank_linear(data.vectors, data.labels, data.num_classes, data.folds, DECAYS)
        if data.units is None or data.scenes is None:
            return ranked[0], None
        # For each name of vectors, the best decay comes first.
        starts = {each.vectors: each for each in reversed(ranked) if each.vectors in ATTENTIVE}
        attentive = min(_attentive_choices(data, starts.values()), key=lambda each: each.loss)
    linear_losses, attentive_losses = (
        held_out_losses(each.logits / each.temperature, data.labels, data.folds)
        for each in (ranked[0], attentive)
    )
    found = compare_losses(linear_losses, attentive_losses, data.scenes)
    return attentive if found.is_gain else ranked[0], found


def fit(data: ProbeData, choice: Choice) -> Probe:
    """Train the chosen probe on all of ``data``."""
    with few_threads(_numbers(data)):
        vectors = data.vectors[choice.vectors]
        layer = fit_linear(vectors, data.labels, data.num_classes, choice.decay)
        if not choice.steps:
            return Probe(choice.vectors, layer)
        trained = next(islice(_trained(data, layer, choice), choice.steps // STRIDE - 1, None))
        return Probe(choice.vectors, trained.head, trained.pooling)


def estimate(data: ProbeData, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return each window's logits, (W, K), by a probe that does not know its fold: calibrated, and as fitted.

    The probe and its temperature are chosen on the other folds alone, so that the choice is measured, too.
    Only the windows ``kept``, (W,) bool, are trained on; None stands for all. If these have too few scenes,
    probes are linear.
    """
    if not (data if kept is None else data.part(kept)).has_enough_scenes:
        data = data.without_units()
    calibrated, fitted = (torch.zeros(len(data.labels), data.num_classes) for _ in range(2))
    for fold in data.folds.unique():
        inside = data.folds == fold
        others = data.part(~inside if kept is None else ~inside & kept)
        choice = choose(others)
        fitted[inside] = fit(others, choice).logits(data.part(inside))
        calibrated[inside] = fitted[inside] / choice.temperature
    return calibrated, fitted


def _attentive_choices(data: ProbeData, starts: Iterable[Choice]) -> Iterator[Choice]:
    """Yield attentive probes that start as linear ones, with the logits of probes without each fold.

    Training ends where ``_PATIENCE`` probes in a row were no better than an earlier one.
    """
    for start in starts:
        best, waited = math.inf, 0
        for number, logits in enumerate(_held_out_logits(data, start), 1):
            steps = number * STRIDE
            choice = calibrated_choice(start.vectors, start.decay, logits, data.labels, data.folds, steps)
            yield choice
            best, waited = (choice.loss, 0) if choice.loss < best else (best, waited + 1)
            if waited == _PATIENCE:
                break


def _held_out_logits(data: ProbeData, start: Choice) -> Iterator[Tensor]:
    """Yield the logits (W, K) of attentive probes that were trained without each window's fold, by steps."""
    trainings = []
    for fold in data.folds.unique():
        inside = data.folds == fold
        others, held_out = data.part(~inside), data.part(inside).units
        assert held_out is not None
        layer = fit_linear(others.vectors[start.vectors], others.labels, data.num_classes, start.decay)
        trainings.append((inside, held_out, _trained(others, layer, start)))
    for probes in zip(*(probes for _, _, probes in trainings), strict=True):
        logits = torch.zeros(len(data.labels), data.num_classes)
        for (inside, held_out, _), probe in zip(trainings, probes, strict=True):
            logits[inside] = probe(held_out)
        yield logits


def _trained(data: ProbeData, layer: nn.Linear, choice: Choice) -> Iterator[AttentiveProbe]:
    """Yield the attentive probes that start as the linear probe ``layer``."""
    assert data.units is not None
    vectors, pool = data.vectors[choice.vectors].float(), ATTENTIVE[choice.vectors]
    return train_attentive(data.units, vectors, data.labels, layer, pool)


def _numbers(data: ProbeData) -> int:
    """Return how many numbers the features of all windows have."""
    return max(each.numel() for each in data.vectors.values())


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
