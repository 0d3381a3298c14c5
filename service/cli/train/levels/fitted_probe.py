"""A linear probe on the vectors of clips: chosen, measured on scenes left out in turn, and calibrated.

W windows, E width of a window's vector, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tubelet.models.training.probe_fit import ProbeData, choose, estimate
from tubelet.models.training.probes import fit_linear, in_other_folds
from tubelet.service.cli.train.data.checked_clips import notes
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.data.division import FOLDS
from tubelet.service.cli.train.data.scene_clusters import scene_folds
from tubelet.service.cli.train.learning_curve import CurvePoint, learning_curve
from tubelet.service.cli.train.levels.temperature import useful_temperature
from tubelet.service.cli.train.levels.true_labels import true_labels
from tubelet.service.cli.train.new_model import Answers, Recipe

Vectors = Mapping[str, Mapping[int, Tensor]]
"""The vectors of the windows of each clip, (W, E), by the name of the vectors and the number of the clip."""


@dataclass(frozen=True, slots=True)
class FittedProbe:
    """The chosen probe: the name of its ``vectors``, its layer (..., E) -> (..., K), and its answers.

    The layer's logits are to be divided by ``temperature``.
    """

    vectors: str
    layer: nn.Linear = field(repr=False)
    temperature: float
    recipe: Recipe
    held_out: Answers
    test: Answers | None  # of the test split, if the data has one


def fit_probe(
    clips: Mapping[int, Clip],
    scenes: NDArray[np.int64],
    labels: Sequence[str],
    vectors: Vectors,
    *,
    with_curve: bool = False,
) -> FittedProbe:
    """Choose and fit a probe on the ``vectors`` of ``clips``, which have numbers; ``scenes`` is by number.

    ``with_curve`` also measures probes that are trained on shares of the clips.
    """
    data, test = (_data(clips, scenes, labels, vectors, is_test=is_test) for is_test in (False, True))
    with notes.status("training probes, with each part of the scenes left out in turn"):
        held_out = _held_out(data)
        choice = choose(data)
        layer = fit_linear(data.vectors[choice.vectors], data.labels, len(labels), choice.decay)
    temperature, held_out, warnings = useful_temperature(choice.temperature, held_out)
    folds = len(data.folds.unique())
    recipe = Recipe(
        level="probe",
        head=f"a linear probe on {choice.vectors}, weight decay {choice.decay:g}",
        measured_on=f"scenes that it does not know ({folds} parts in turn)",
        details={"vectors": choice.vectors, "decay": choice.decay, "folds": folds},
        warnings=warnings,
        curve=_curve(data, scenes) if with_curve else (),
    )
    answers = _test_answers(layer, test, choice.vectors, temperature)
    return FittedProbe(choice.vectors, layer, temperature, recipe, held_out, answers)


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
    vectors: Vectors,
    *,
    is_test: bool,
) -> ProbeData:
    """Return the vectors of the windows of the training clips, or of those of the test split."""
    chosen = [number for number, clip in clips.items() if clip.is_test == is_test]
    count = min(FOLDS, len(set(scenes[chosen].tolist())))
    folds = scene_folds(scenes[chosen].tolist(), [clips[each].labels for each in chosen], count)
    windows = next(iter(vectors.values()))
    repeats = torch.tensor([len(windows[number]) for number in chosen], dtype=torch.int64)

    def of_windows(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64).repeat_interleave(repeats)

    return ProbeData(
        {
            name: torch.cat([each[number] for number in chosen]) if chosen else torch.zeros(0, 1)
            for name, each in vectors.items()
        },
        true_labels([clips[number] for number in chosen], labels).repeat_interleave(repeats, dim=0),
        of_windows(chosen),
        of_windows(folds.tolist()),
        len(labels),
    )


@torch.inference_mode()
def _test_answers(layer: nn.Linear, test: ProbeData, vectors: str, temperature: float) -> Answers | None:
    """Return the answers of a probe for the test split; None if there is none."""
    if not len(test.labels):
        return None
    logits = layer(test.vectors[vectors])
    return Answers(logits / temperature, logits, test.labels, test.clips)
