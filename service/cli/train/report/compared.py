"""Ways to train that were compared on the same scenes: one table and one page.

C clips, each answered by a model that did not know its scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tubelet.service.cli.evaluation.measures import Interval, difference_interval, wilson_interval
from tubelet.service.report.page import render_page

COMPARISON = "comparison.html"
"""The name of the page in its folder."""

_HEADER = ("", "accuracy", "minus the best", "training", "parameters", "a clip")


@dataclass(frozen=True, slots=True)
class Compared:
    """One way to train, what it is worth and what it costs.

    ``seconds`` are those of training without one part of the scenes, the median over parts. ``processor_s``
    are of classifying a clip, without decoding.
    """

    name: str
    is_right: NDArray[np.bool_] = field(repr=False)  # (C,)
    seconds: float
    parameters: int
    processor_s: float

    @property
    def accuracy(self) -> float:
        """The share of clips with the right label."""
        return float(self.is_right.mean())

    @property
    def interval(self) -> Interval:
        """Wilson's interval of the accuracy."""
        return wilson_interval(int(self.is_right.sum()), len(self.is_right))

    def minus(self, other: "Compared") -> tuple[float, Interval]:
        """Return the difference in accuracy, and its interval by the bootstrap over pairs of answers."""
        gained = int((self.is_right & ~other.is_right).sum())
        lost = int((other.is_right & ~self.is_right).sum())
        count = len(self.is_right)
        return (gained - lost) / count, difference_interval(gained, lost, count)


def comparison_rows(found: Sequence[Compared]) -> list[dict[str, Any]]:
    """Return an object for each way to train, the best one first."""
    ordered = sorted(found, key=lambda each: -each.accuracy)
    rows = []
    for each in ordered:
        difference, interval = each.minus(ordered[0])
        rows.append(
            {
                "name": each.name,
                "clips": len(each.is_right),
                "accuracy": each.accuracy,
                "interval": each.interval,
                "minus_best": difference,
                "minus_best_interval": interval,
                "training_s": each.seconds,
                "parameters": each.parameters,
                "processor_s_per_clip": each.processor_s,
            }
        )
    return rows


def comparison_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table as lines of text in columns."""
    cells = [_HEADER, *(_cells(row, is_best=number == 0) for number, row in enumerate(rows))]
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
    return render_page("trainings.html", source=str(data), rows=rows, folds=folds)


def _cells(row: dict[str, Any], *, is_best: bool) -> tuple[str, ...]:
    """Format one row of the table."""
    low, high = row["interval"]
    least, most = row["minus_best_interval"]
    return (
        row["name"],
        f"{row['accuracy']:.3f} ({low:.3f} to {high:.3f})",
        "" if is_best else f"{row['minus_best']:+.3f} ({least:+.3f} to {most:+.3f})",
        f"{row['training_s']:.1f} s",
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['processor_s_per_clip']:.3f} s",
    )
