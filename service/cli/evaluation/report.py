"""The report of an evaluation: accuracy, figures of each class, confusion matrix, calibration, mistakes.

n classes: those that occur as a true or predicted label, in the model's order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import numpy as np

from tubelet.service.cli.evaluation.measures import (
    BINS,
    Calibration,
    Interval,
    average_precision,
    calibration,
    wilson_interval,
)
from tubelet.service.cli.evaluation.outcomes import TOP_K, Outcome

_MISTAKES = 20


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """The figures of one class; None where there are no videos to compute a figure from.

    ``average_precision`` needs the scores of all labels.
    """

    label: str
    videos: int
    predicted: int
    right: int
    average_precision: float | None = None

    @property
    def recall(self) -> float | None:
        """The share of the class's videos that got its label."""
        return self.right / self.videos if self.videos else None

    @property
    def recall_interval(self) -> Interval | None:
        """Wilson's interval of the recall."""
        return wilson_interval(self.right, self.videos) if self.videos else None

    @property
    def precision(self) -> float | None:
        """The share of the videos that got its label to which it belongs."""
        return self.right / self.predicted if self.predicted else None

    @property
    def f1(self) -> float:
        """The harmonic mean of recall and precision; 0 if no video of the class is right."""
        return 2 * self.right / (self.videos + self.predicted)


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of an evaluation; ``top5`` is None if the model has at most five labels.

    ``mistakes`` are the wrong answers with the highest scores, highest first.
    """

    labels: tuple[str, ...]
    confusion: np.ndarray = field(repr=False)  # (n, n) int: videos by true and by predicted label
    classes: tuple[ClassFigures, ...] = field(repr=False)
    top1: float
    top1_interval: Interval
    top5: float | None
    top5_interval: Interval | None
    mean_average_precision: float | None
    calibration: Calibration
    mistakes: tuple[Outcome, ...] = field(repr=False)

    @property
    def videos(self) -> int:
        """The number of videos."""
        return int(self.confusion.sum())


def make_report(outcomes: Sequence[Outcome], model_labels: tuple[str, ...]) -> Report:
    """Compute the figures of one or more outcomes.

    Average precision is computed if all outcomes have the scores of all labels; its mean is over the classes
    that have videos.
    """
    seen = {outcome.label for outcome in outcomes} | {outcome.best.name for outcome in outcomes}
    labels = tuple(label for label in model_labels if label in seen)
    confusion = _confusion(outcomes, labels)
    total, right = len(outcomes), int(np.trace(confusion))
    in_top = sum(outcome.label in [each.name for each in outcome.predicted] for outcome in outcomes)
    has_top5 = len(model_labels) > TOP_K
    precisions = _average_precisions(outcomes, model_labels)
    return Report(
        labels,
        confusion,
        tuple(_class_figures(labels, confusion, precisions)),
        top1=right / total,
        top1_interval=wilson_interval(right, total),
        top5=in_top / total if has_top5 else None,
        top5_interval=wilson_interval(in_top, total) if has_top5 else None,
        mean_average_precision=sum(precisions.values()) / len(precisions) if precisions else None,
        calibration=calibration(
            np.array([outcome.best.score for outcome in outcomes]),
            np.array([outcome.is_right for outcome in outcomes]),
        ),
        mistakes=surest_mistakes(outcomes)[:_MISTAKES],
    )


def surest_mistakes(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Return the wrong outcomes, those with the highest score first."""
    wrong = [outcome for outcome in outcomes if not outcome.is_right]
    return tuple(sorted(wrong, key=lambda each: -each.best.score))


def report_json(report: Report) -> dict[str, Any]:
    """Return the report as an object for ``report.json``."""
    return {
        "videos": report.videos,
        "top1": report.top1,
        "top1_interval": report.top1_interval,
        "top5": report.top5,
        "top5_interval": report.top5_interval,
        "mean_average_precision": report.mean_average_precision,
        "classes": [_class_json(each) for each in report.classes],
        "confusion": {"labels": list(report.labels), "counts": report.confusion.tolist()},
        "calibration": _calibration_json(report.calibration),
        "surest_mistakes": [
            {
                "video": each.video,
                "label": each.label,
                "predicted": each.best.name,
                "score": each.best.score,
            }
            for each in report.mistakes
        ],
    }


def _confusion(outcomes: Sequence[Outcome], labels: tuple[str, ...]) -> np.ndarray:
    """Count the outcomes by true and predicted label, (n, n)."""
    index_of = {label: index for index, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), int)
    for outcome in outcomes:
        confusion[index_of[outcome.label], index_of[outcome.best.name]] += 1
    return confusion


def _average_precisions(outcomes: Sequence[Outcome], model_labels: tuple[str, ...]) -> dict[str, float]:
    """Return the average precision of each class with videos; none if an outcome lacks its scores."""
    rows = [outcome.scores for outcome in outcomes if outcome.scores is not None]
    if len(rows) < len(outcomes):
        return {}
    scores = np.stack(rows)
    true = np.array([outcome.label for outcome in outcomes])
    has_videos = set(true.tolist())
    return {
        label: average_precision(scores[:, index], true == label)
        for index, label in enumerate(model_labels)
        if label in has_videos
    }


def _class_figures(
    labels: tuple[str, ...], confusion: np.ndarray, precisions: dict[str, float]
) -> list[ClassFigures]:
    """Return the figures of each class."""
    counts = zip(
        confusion.sum(axis=1).tolist(),
        confusion.sum(axis=0).tolist(),
        np.diag(confusion).tolist(),
        strict=True,
    )
    return [
        ClassFigures(label, *count, precisions.get(label))
        for label, count in zip(labels, counts, strict=True)
    ]


def _class_json(figures: ClassFigures) -> dict[str, Any]:
    """Return the object of a class."""
    return {
        "label": figures.label,
        "videos": figures.videos,
        "predicted": figures.predicted,
        "recall": figures.recall,
        "recall_interval": figures.recall_interval,
        "precision": figures.precision,
        "f1": figures.f1,
        "average_precision": figures.average_precision,
    }


def _calibration_json(found: Calibration) -> dict[str, Any]:
    """Return the object of a calibration curve; empty bins have null as their score and accuracy."""
    bins = zip(found.counts.tolist(), found.scores.tolist(), found.accuracies.tolist(), strict=True)
    return {
        "ece": found.ece,
        "ece_interval": found.ece_interval,
        "ece_if_calibrated": found.ece_if_calibrated,
        "bins": [
            {
                "from": index / BINS,
                "to": (index + 1) / BINS,
                "videos": videos,
                "score": None if isnan(score) else score,
                "accuracy": None if isnan(accuracy) else accuracy,
            }
            for index, (videos, score, accuracy) in enumerate(bins)
        ],
    }
