"""What independent labels are worth on clips: mean average precision, F1, calibration, figures by label.

C clips, K labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tubelet.service.cli.evaluation.measures import (
    LEVEL,
    RESAMPLES,
    Calibration,
    Interval,
    average_precision,
    calibration,
    grouped_calibration_error,
)

HALF = 0.5
"""From this score on, a clip is said to have a label."""
_PAIR_RESAMPLES = 300  # of a difference; each is two mean average precisions

Scores = NDArray[np.floating[Any]]
Truth = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """The figures of one label at a score of 0.5: clips that have it, that are said to, and both.

    ``average_precision`` is None for a label that no clip has, or all have.
    """

    label: str
    clips: int
    said: int
    right: int
    average_precision: float | None

    @property
    def recall(self) -> float | None:
        """The share of the clips with the label that are found."""
        return self.right / self.clips if self.clips else None

    @property
    def precision(self) -> float | None:
        """The share of the clips that are found which have the label."""
        return self.right / self.said if self.said else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall; None where there is no average precision."""
        return None if self.average_precision is None else 2 * self.right / (self.clips + self.said)


@dataclass(frozen=True, slots=True)
class LabelReport:
    """The figures of all labels; ``f1`` is over all scores at once (micro).

    The mean average precision is over the labels that some clips have and others do not, None without any.
    The calibration compares each score with whether the clip has that label; its interval is over clips.
    """

    clips: int
    mean_average_precision: float | None
    interval: Interval
    f1: float
    labels: tuple[LabelFigures, ...] = field(repr=False)
    calibration: Calibration


def make_label_report(scores: Scores, truth: Truth, names: Sequence[str]) -> LabelReport:
    """Compute the figures of scores, (C, K), of clips that have the labels ``truth``, (C, K)."""
    said = scores >= HALF
    precisions = _average_precisions(scores, truth)
    labels = tuple(
        LabelFigures(
            name,
            clips=int(truth[:, number].sum()),
            said=int(said[:, number].sum()),
            right=int((said & truth)[:, number].sum()),
            average_precision=precisions.get(number),
        )
        for number, name in enumerate(names)
    )
    total = int(said.sum() + truth.sum())
    pairs = scores.ravel(), truth.ravel()
    _, calibration_interval = grouped_calibration_error(*pairs, np.arange(len(truth)).repeat(truth.shape[1]))
    return LabelReport(
        clips=len(truth),
        mean_average_precision=float(np.mean(list(precisions.values()))) if precisions else None,
        interval=mean_precision_interval(scores, truth),
        f1=2 * int((said & truth).sum()) / total if total else 0.0,
        labels=labels,
        calibration=replace(calibration(*pairs), ece_interval=calibration_interval),
    )


def mean_precision_interval(scores: Scores, truth: Truth) -> Interval:
    """Return the percentile bootstrap interval of the mean average precision, over clips."""
    random, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        chosen = random.integers(0, len(truth), len(truth))
        if precisions := _average_precisions(scores[chosen], truth[chosen]):
            found.append(np.mean(list(precisions.values())))
    return _span(found) if found else (0.0, 1.0)


def mean_precision_difference(one: Scores, other: Scores, truth: Truth) -> tuple[float, Interval]:
    """Return how much larger the mean average precision of ``one`` is, with its paired bootstrap interval."""
    random, found = np.random.default_rng(0), []
    for _ in range(_PAIR_RESAMPLES):
        chosen = random.integers(0, len(truth), len(truth))
        if _average_precisions(one[chosen], truth[chosen]):
            found.append(
                mean_precision(one[chosen], truth[chosen]) - mean_precision(other[chosen], truth[chosen])
            )
    difference = mean_precision(one, truth) - mean_precision(other, truth)
    return difference, _span(found) if found else (-1.0, 1.0)


def mean_precision(scores: Scores, truth: Truth) -> float:
    """Return the mean average precision; 0 if no label is one that some clips have and others do not."""
    precisions = _average_precisions(scores, truth)
    return float(np.mean(list(precisions.values()))) if precisions else 0.0


def label_report_json(report: LabelReport) -> dict[str, Any]:
    """Return the report as an object for ``report.json``."""
    return {
        "videos": report.clips,
        "mean_average_precision": report.mean_average_precision,
        "mean_average_precision_interval": report.interval,
        "f1": report.f1,
        "classes": [
            {
                "label": each.label,
                "videos": each.clips,
                "predicted": each.said,
                "recall": each.recall,
                "precision": each.precision,
                "f1": each.f1,
                "average_precision": each.average_precision,
            }
            for each in report.labels
        ],
        "ece": report.calibration.ece,
        "ece_interval": report.calibration.ece_interval,
    }


def label_report_text(report: LabelReport) -> str:
    """Format the report as text."""
    found, (low, high) = report.mean_average_precision, report.interval
    width = max(len("label"), *(len(each.label) for each in report.labels))
    lines = [
        "mAP    no figure: each label is one that all clips have, or none"
        if found is None
        else f"mAP    {found:.3f}  (95 %: {low:.3f} to {high:.3f})",
        f"F1     {report.f1:.3f}  at a score of 0.5",
        f"ECE    {report.calibration.ece:.3f}  (95 %: {report.calibration.ece_interval[0]:.3f} to "
        f"{report.calibration.ece_interval[1]:.3f}) of all scores",
        "",
        f"{'label':{width}}  videos  recall  precision     F1     AP",
    ]
    lines += [
        f"{each.label:{width}}  {each.clips:6}  {_share(each.recall):>6}  {_share(each.precision):>9}  "
        f"{_share(each.f1):>5}  {_share(each.average_precision):>5}"
        for each in report.labels
    ]
    return "\n".join(lines)


def _average_precisions(scores: Scores, truth: Truth) -> dict[int, float]:
    """Return the average precision of each label that some clips have and others do not, by its number."""
    told = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    return {int(each): average_precision(scores[:, each], truth[:, each]) for each in told}


def _span(values: Sequence[float]) -> Interval:
    """Return the middle 95 % of values."""
    low, high = np.quantile(values, (0.5 - LEVEL / 2, 0.5 + LEVEL / 2))
    return float(low), float(high)


def _share(share: float | None) -> str:
    """Format a share; None is "-"."""
    return "-" if share is None else f"{share:.3f}"
