"""The report of an evaluation: top 1 and top 5, figures of each class, and the confusion matrix.

n classes: those that occur as a true or predicted label, in the model's order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TOP_K = 5  # the number of labels that an outcome needs
_MAX_CLASSES_AS_TEXT = 20  # of a confusion matrix; more do not fit on a terminal


@dataclass(frozen=True, slots=True)
class Outcome:
    """One classified video: its true label, and the predicted ones, best first."""

    label: str
    predicted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of an evaluation; ``top5`` is None if the model has at most five labels."""

    labels: tuple[str, ...]
    confusion: np.ndarray = field(repr=False)  # (n, n) int: videos by true and by predicted label
    top1: float
    top5: float | None

    @property
    def videos(self) -> int:
        """The number of videos."""
        return int(self.confusion.sum())

    def classes(self) -> list[dict[str, Any]]:
        """Return for each label: videos, recall (None: no videos), precision (None: never predicted)."""
        right = np.diag(self.confusion)
        true, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return [
            {
                "label": label,
                "videos": int(true[index]),
                "recall": float(right[index] / true[index]) if true[index] else None,
                "precision": float(right[index] / predicted[index]) if predicted[index] else None,
            }
            for index, label in enumerate(self.labels)
        ]


def make_report(outcomes: Sequence[Outcome], model_labels: tuple[str, ...]) -> Report:
    """Compute the figures of one or more outcomes."""
    seen = {outcome.label for outcome in outcomes} | {outcome.predicted[0] for outcome in outcomes}
    labels = tuple(label for label in model_labels if label in seen)
    index_of = {label: index for index, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), int)
    for outcome in outcomes:
        confusion[index_of[outcome.label], index_of[outcome.predicted[0]]] += 1
    in_top = sum(outcome.label in outcome.predicted[:TOP_K] for outcome in outcomes)
    return Report(
        labels,
        confusion,
        top1=float(np.trace(confusion) / len(outcomes)),
        top5=in_top / len(outcomes) if len(model_labels) > TOP_K else None,
    )


def report_json(report: Report) -> dict[str, Any]:
    """Return the report as an object for ``report.json``."""
    return {
        "videos": report.videos,
        "top1": report.top1,
        "top5": report.top5,
        "classes": report.classes(),
        "confusion": {"labels": list(report.labels), "counts": report.confusion.tolist()},
    }


def report_text(report: Report) -> str:
    """Format the report as text; many classes get no confusion matrix."""
    lines = [f"top 1  {report.top1:.3f}"]
    if report.top5 is not None:
        lines.append(f"top 5  {report.top5:.3f}")
    label_width = max(map(len, ("class", *report.labels)))
    lines += ["", f"{'class':{label_width}}  videos  recall  precision"]
    for each in report.classes():
        recall, precision = _share(each["recall"]), _share(each["precision"])
        lines.append(f"{each['label']:{label_width}}  {each['videos']:6}  {recall:>6}  {precision:>9}")
    if len(report.labels) <= _MAX_CLASSES_AS_TEXT:
        lines += ["", *_confusion_lines(report, label_width)]
    return "\n".join(lines)


def _confusion_lines(report: Report, label_width: int) -> list[str]:
    """Format the matrix: a row for each true label; columns show only numbers, to stay narrow."""
    cell_width = len(str(max(report.confusion.max(), len(report.labels)))) + 2
    numbers = "".join(f"{number:{cell_width}}" for number in range(1, len(report.labels) + 1))
    lines = ["true label (row) by predicted label (column)", " " * (label_width + 4) + numbers]
    for number, (label, row) in enumerate(zip(report.labels, report.confusion, strict=True), 1):
        cells = "".join(f"{count or '.':>{cell_width}}" for count in row)
        lines.append(f"{number:2}  {label:{label_width}}{cells}")
    return lines


def _share(share: float | None) -> str:
    """Format a share; None is "-"."""
    return "-" if share is None else f"{share:.3f}"
