"""What a model of independent labels is worth on clips that it does not know: mAP, F1 and calibration.

W windows, C clips, K labels.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

from tubelet.models.training.probe_fit import labels_by_clip, mean_by_clip
from tubelet.service.cli.evaluation.measures import Interval
from tubelet.service.cli.evaluation.multilabel.label_report import make_label_report
from tubelet.service.cli.train.report.calibration_errors import (
    CalibrationErrors,
    error_lines,
    measure_errors,
)


@dataclass(frozen=True, slots=True)
class MultilabelFigures(CalibrationErrors):
    """Mean average precision over labels, F1 at a score of 0.5, and the calibration error of all scores.

    Labels that no clip has, or all have, have no average precision and no F1: None. So is the mean where all
    labels are such. ``f1`` is over all scores (micro). The calibration error compares each score with whether
    the clip has that label.
    """

    clips: int
    mean_average_precision: float | None
    interval: Interval
    average_precisions: dict[str, float | None]
    f1: float
    f1s: dict[str, float | None]


def measure_labels(
    calibrated: Tensor, fitted: Tensor, labels: Tensor, clips: Tensor, names: Sequence[str]
) -> MultilabelFigures:
    """Compute the figures of logits, (W, K), with and without temperature; labels (W, K), clips (W,)."""
    scores, truth = clip_scores(calibrated, labels, clips)
    before, _ = clip_scores(fitted, labels, clips)
    report = make_label_report(scores, truth, names)
    windows = labels.numpy().astype(bool).ravel()
    errors = measure_errors(
        (before.ravel(), truth.ravel()),
        (scores.ravel(), truth.ravel()),
        (_sigmoid(fitted).ravel(), windows),
        (_sigmoid(calibrated).ravel(), windows),
        clips.numpy().repeat(labels.shape[1]),
    )
    return MultilabelFigures(
        clips=report.clips,
        mean_average_precision=report.mean_average_precision,
        interval=report.interval,
        average_precisions={each.label: each.average_precision for each in report.labels},
        f1=report.f1,
        f1s={each.label: each.f1 for each in report.labels},
        **asdict(errors),
    )


def clip_scores(logits: Tensor, labels: Tensor, clips: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of each clip's labels, and whether it has them: (W, K), (W, K), (W,) -> (C, K)."""
    means, _ = mean_by_clip(logits, clips)
    return _sigmoid(means), labels_by_clip(labels, clips).numpy() > 0


def multilabel_lines(figures: MultilabelFigures, measured_on: str) -> list[str]:
    """Return the lines of text on the figures."""
    low, high = figures.interval
    mean = "no mean average precision"
    if (found := figures.mean_average_precision) is not None:
        mean = f"mean average precision {found:.3f} ({low:.3f} to {high:.3f}, 95 %)"
    precisions = figures.average_precisions.items()
    return [
        f"on {measured_on}: {mean}, F1 {figures.f1:.3f} at a score of 0.5, {figures.clips} clips",
        *(f"  {name}: {_pair(precision, figures.f1s[name])}" for name, precision in precisions),
        *error_lines(figures),
    ]


def _pair(precision: float | None, f1: float | None) -> str:
    """Format the figures of one label."""
    if precision is None or f1 is None:
        return "no figure: no clip has it, or all have"
    return f"average precision {precision:.3f}, F1 {f1:.3f}"


def _sigmoid(logits: Tensor) -> np.ndarray:
    """Return the scores of logits."""
    return logits.double().sigmoid().numpy()
