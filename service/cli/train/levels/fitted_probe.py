"""A probe on the vectors or units of clips: chosen, measured on scenes left out in turn, and calibrated.

W windows, S units in a window, D width of a unit's embedding, E width of a window's vector, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tubelet.models.training.attentive_probe import join_units
from tubelet.models.training.loss_comparison import Comparison
from tubelet.models.training.probe_fit import Probe, ProbeData, compare, estimate, fit
from tubelet.models.training.probes import Choice, in_other_folds
from tubelet.service.cli.train.data.checked_clips import notes
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.data.division import FOLDS
from tubelet.service.cli.train.data.scene_clusters import scene_folds
from tubelet.service.cli.train.learning_curve import CurvePoint, learning_curve
from tubelet.service.cli.train.levels.temperature import useful_temperature
from tubelet.service.cli.train.levels.true_labels import true_labels
from tubelet.service.cli.train.new_model import Answers, Recipe

ATTENDED = {"mean": "units", "mean and change": "units and their change"}
"""What an attentive probe attends to in words, by the vectors of the linear probe that it starts as."""
_IN_WORDS = {
    "mean": "the mean",
    "mean and change": "the mean and the mean change",
    "temporal transformer": "the vector of the temporal transformer",
    "the vector": "the vector",
}
Vectors = Mapping[str, Mapping[int, Tensor]]
"""The vectors of the windows of each clip, (W, E), by the name of the vectors and the number of the clip."""
UnitsOfClips = Mapping[int, Tensor]
"""The units of the windows of each clip, (W, S, D), by the number of the clip."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a probe may be trained on; without ``units``, it is a linear one."""

    vectors: Vectors = field(repr=False)
    units: UnitsOfClips | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FittedProbe:
    """The chosen probe and its answers; its logits are to be divided by ``temperature``."""

    probe: Probe
    temperature: float
    recipe: Recipe
    held_out: Answers
    test: Answers | None  # of the test split, if the data has one


def fit_probe(
    clips: Mapping[int, Clip],
    scenes: NDArray[np.int64],
    labels: Sequence[str],
    features: Features,
    *,
    with_curve: bool = False,
) -> FittedProbe:
    """Choose and fit a probe on the ``features`` of ``clips``, which have numbers; ``scenes`` is by number.

    ``with_curve`` also measures probes that are trained on shares of the clips.
    """
    data, test = (_data(clips, scenes, labels, features, is_test=is_test) for is_test in (False, True))
    with notes.status("training probes, with each part of the scenes left out in turn"):
        held_out = _held_out(data)
        choice, comparison = compare(data if data.has_enough_scenes else data.without_units())
        probe = fit(data, choice)
    temperature, held_out, warnings = useful_temperature(choice.temperature, held_out)
    folds = len(data.folds.unique())
    recipe = Recipe(
        level="probe",
        head=_describe(choice),
        measured_on=f"scenes that it does not know ({folds} parts in turn)",
        details=_details(choice, comparison) | {"folds": folds},
        warnings=warnings,
        reasons=() if comparison is None else (_reason(comparison),),
        curve=_curve(data, scenes) if with_curve else (),
    )
    return FittedProbe(probe, temperature, recipe, held_out, _test_answers(probe, test, temperature))


def _describe(choice: Choice) -> str:
    """Say in words what a probe is."""
    linear = f"linear probe on {_IN_WORDS[choice.vectors]}, weight decay {choice.decay:g}"
    if not choice.steps:
        return f"a {linear}"
    seen = ATTENDED[choice.vectors]
    return f"an attentive probe on {seen}, {choice.steps} steps from a {linear}"


def _details(choice: Choice, found: Comparison | None) -> dict[str, Any]:
    """Return for machines what a probe is, and the losses of the probes that it was chosen from."""
    compared = None if found is None else found.json("linear", "attentive")
    return {
        "probe": "attentive" if choice.steps else "linear",
        "vectors": choice.vectors,
        "decay": choice.decay,
        "steps": choice.steps,
        "probes_compared": compared,
    }


def _reason(found: Comparison) -> str:
    """Say why the probe is linear, or attentive."""
    return found.sentence("the linear probe", "the attentive probe", "in cross-validation by scene")


def _curve(data: ProbeData, scenes: NDArray[np.int64]) -> tuple[CurvePoint, ...]:
    """Measure probes on growing shares of the clips."""
    with notes.status("training probes on shares of the clips"):
        return learning_curve(data, scenes)


def _held_out(data: ProbeData) -> Answers:
    """Return the answers of probes for the windows whose label they could know: other folds have it, too."""
    known = in_other_folds(data.labels, data.folds)
    calibrated, fitted = estimate(data)
    return Answers(calibrated[known], fitted[known], data.labels[known], data.clips[known])


def _data(
    clips: Mapping[int, Clip],
    scenes: NDArray[np.int64],
    labels: Sequence[str],
    features: Features,
    *,
    is_test: bool,
) -> ProbeData:
    """Return the features of the windows of the training clips, or of those of the test split."""
    chosen = [number for number, clip in clips.items() if clip.is_test == is_test]
    count = min(FOLDS, len(set(scenes[chosen].tolist())))
    folds = scene_folds(scenes[chosen].tolist(), [clips[each].labels for each in chosen], count)
    windows, units = next(iter(features.vectors.values())), features.units
    repeats = torch.tensor([len(windows[number]) for number in chosen], dtype=torch.int64)

    def of_windows(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64).repeat_interleave(repeats)

    return ProbeData(
        {
            name: torch.cat([each[number] for number in chosen]) if chosen else torch.zeros(0, 1)
            for name, each in features.vectors.items()
        },
        true_labels([clips[number] for number in chosen], labels).repeat_interleave(repeats, dim=0),
        of_windows(chosen),
        of_windows(folds.tolist()),
        len(labels),
        join_units([units[number] for number in chosen]) if units and chosen else None,
        of_windows(scenes[chosen].tolist()),
    )


def _test_answers(probe: Probe, test: ProbeData, temperature: float) -> Answers | None:
    """Return the answers of a probe for the test split; None if there is none."""
    if not len(test.labels):
        return None
    logits = probe.logits(test)
    return Answers(logits / temperature, logits, test.labels, test.clips)
