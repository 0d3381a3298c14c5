"""Ways to train that were compared on the same scenes: one table and one page.

C clips, each answered by a model that did not know its scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tubelet.service.cli.evaluation.measures import Interval, difference_interval, wilson_interval
from tubelet.service.cli.evaluation.multilabel.label_report import (
    Scores,
    Truth,
    mean_precision,
    mean_precision_difference,
    mean_precision_interval,
)
from tubelet.service.report.page import render_page

COMPARISON = "comparison.html"
"""The name of the page in its folder."""

_COSTS = ("minus the best", "training", "parameters", "a clip")


@dataclass(frozen=True, slots=True)
class ClassAnswers:
    """Whether the answer for each clip is right, (C,)."""

    is_right: NDArray[np.bool_] = field(repr=False)

    measure: ClassVar[str] = "accuracy"

    @property
    def value(self) -> float:
        """The share of clips with the right label."""
        return float(self.is_right.mean())

    @property
    def interval(self) -> Interval:
        """Wilson's interval of the accuracy."""
        return wilson_interval(int(self.is_right.sum()), len(self.is_right))

    def __len__(self) -> int:
        return len(self.is_right)


@dataclass(frozen=True, slots=True)
class LabelAnswers:
    """The scores of independent labels, (C, K), and whether each clip has them."""

    scores: Scores = field(repr=False)
    truth: Truth = field(repr=False)

    measure: ClassVar[str] = "mean average precision"

    @property
    def value(self) -> float:
        """The mean average precision."""
        return mean_precision(self.scores, self.truth)

    @property
    def interval(self) -> Interval:
        """The bootstrap interval of the mean average precision, over clips."""
        return mean_precision_interval(self.scores, self.truth)

    def __len__(self) -> int:
        return len(self.truth)


def difference(
    one: ClassAnswers | LabelAnswers, other: ClassAnswers | LabelAnswers
) -> tuple[float, Interval]:
    """Return how much better ``one`` is on the same clips, and the interval of it by the paired bootstrap."""
    if isinstance(one, LabelAnswers) and isinstance(other, LabelAnswers):
        return mean_precision_difference(one.scores, other.scores, one.truth)
    assert isinstance(one, ClassAnswers)
    assert isinstance(other, ClassAnswers)
    gained = int((one.is_right & ~other.is_right).sum())
    lost = int((other.is_right & ~one.is_right).sum())
    return (gained - lost) / len(one), difference_interval(gained, lost, len(one))


@dataclass(frozen=True, slots=True)
class Compared:
    """One way to train, what it is worth and what it costs.

    ``seconds`` are those of training without one part of the scenes, the median over parts. ``processor_s``
    are of classifying a clip, without decoding.
    """

    name: str
    answers: ClassAnswers | LabelAnswers
    seconds: float
    parameters: int
    processor_s: float


def comparison_rows(found: Sequence[Compared]) -> list[dict[str, Any]]:
    """Return an object for each way to train, the best one first."""
    ordered = sorted(found, key=lambda each: -each.answers.value)
    rows = []
    for each in ordered:
        less, interval = difference(each.answers, ordered[0].answers)
        rows.append(
            {
                "name": each.name,
                "clips": len(each.answers),
                each.answers.measure.replace(" ", "_"): each.answers.value,
                "interval": each.answers.interval,
                "minus_best": less,
                "minus_best_interval": interval,
                "training_s": each.seconds,
                "parameters": each.parameters,
                "processor_s_per_clip": each.processor_s,
            }
        )
    return rows


def comparison_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table as lines of text in columns."""
    header = ("", measure_of(rows), *_COSTS)
    cells = [header, *(_cells(row, is_best=number == 0) for number, row in enumerate(rows))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def comparison_page(data: Path, rows: Sequence[dict[str, Any]], folds: int) -> str:
    """Return the page: the table, and a picture of the accuracies with their intervals."""
    shown = [row | {"value": _value(row)} for row in rows]
    return render_page("trainings.html", source=str(data), rows=shown, folds=folds, measure=measure_of(rows))


def measure_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return what ways to train were compared by: accuracy, or mean average precision."""
    measures = (ClassAnswers.measure, LabelAnswers.measure)
    return next(each for each in measures if each.replace(" ", "_") in rows[0])


def _value(row: dict[str, Any]) -> float:
    """Return what a way to train is worth."""
    return row[measure_of([row]).replace(" ", "_")]


def _cells(row: dict[str, Any], *, is_best: bool) -> tuple[str, ...]:
    """Format one row of the table."""
    low, high = row["interval"]
    least, most = row["minus_best_interval"]
    return (
        row["name"],
        f"{_value(row):.3f} ({low:.3f} to {high:.3f})",
        "" if is_best else f"{row['minus_best']:+.3f} ({least:+.3f} to {most:+.3f})",
        f"{row['training_s']:.1f} s",
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['processor_s_per_clip']:.3f} s",
    )
