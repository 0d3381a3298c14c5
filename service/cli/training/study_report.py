"""What the study found, as a table of Markdown and two pictures.

S seeds, n test windows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray

from tubelet.models.costs import ASSUMED_WATTS, estimated_joules, joules_text
from tubelet.models.training.simulation.camera_path import LABELS
from tubelet.models.training.study.design import (
    ARCHITECTURES,
    BY_HEADS,
    MODELS,
    WINDOW_S,
    Design,
    Run,
    plural_heads,
)
from tubelet.models.training.study.results import Result
from tubelet.models.training.study.run import processor_s_per_window
from tubelet.models.training.study.windows import read_windows
from tubelet.service.cli.evaluation.measures import LEVEL, Interval, wilson_interval
from tubelet.service.report.line_picture import Line, LinePicture, Mark, draw_lines

CNN = "r2plus1d"
_A_MINUTE = round(60 / WINDOW_S)  # windows
_SIGMAS = NormalDist().inv_cdf(0.5 + LEVEL / 2)


@dataclass(frozen=True, slots=True)
class Point:
    """A model trained on a number of windows: its accuracy by seed, their mean, and an interval.

    Of one seed, ``interval`` is Wilson's over the test windows; of more, it reaches from the low end of the
    worst seed's to the high end of the best seed's. ``right`` (S, n) bool says which test windows are right.
    """

    model: str
    windows: int
    accuracies: tuple[float, ...]
    interval: Interval
    parameters: int
    processor_s: float  # mean over seeds
    right: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """The mean over seeds."""
        return fmean(self.accuracies)


def summarise(results: dict[Run, Result], labels: NDArray[np.int64]) -> dict[tuple[str, int], Point]:
    """Return the points of all runs that are done, by model and size; runs of the search are left out."""
    groups: dict[tuple[str, int], list[Result]] = {}
    for run, result in results.items():
        if run.rate is None:
            groups.setdefault((run.model, run.windows), []).append(result)
    return {key: _point(key, group, labels) for key, group in sorted(groups.items())}


def _point(key: tuple[str, int], results: list[Result], labels: NDArray[np.int64]) -> Point:
    """Return the point of a model and size."""
    results = sorted(results, key=lambda result: result.run.seed)
    right = np.array([np.array(result.answers) == labels for result in results])
    intervals = [wilson_interval(int(each.sum()), len(labels)) for each in right]
    return Point(
        *key,
        accuracies=tuple(float(each.mean()) for each in right),
        interval=(min(low for low, _ in intervals), max(high for _, high in intervals)),
        parameters=results[0].parameters,
        processor_s=fmean(result.processor_s for result in results),
        right=right,
    )


def difference(first: Point, second: Point) -> tuple[float, Interval]:
    """Return how much more accurate ``second`` is on the same test windows, with an interval of 95 %.

    Means over the seeds that both have. The interval covers the choice of test windows, not that of seeds.
    """
    seeds = min(len(first.right), len(second.right))
    each = second.right[:seeds].mean(axis=0) - first.right[:seeds].mean(axis=0)
    half = _SIGMAS * float(each.std(ddof=1)) / sqrt(len(each))
    mean = float(each.mean())
    return mean, (mean - half, mean + half)


def write_report(results: dict[Run, Result], design: Design, out: Path) -> None:
    """Write ``study.md`` and, where a line has a mark, the two pictures, into ``out``."""
    labels = read_windows("test", out / "windows").labels.numpy()
    points = summarise(results, labels)
    (out / "study.md").write_text(tables(results, points, design))
    for name, picture in pictures(points, design).items():
        if picture is not None:
            (out / name).write_text(draw_lines(picture))


def pictures(points: dict[tuple[str, int], Point], design: Design) -> dict[str, LinePicture | None]:
    """Return the pictures by the names of their files."""
    titles = {name: plural_heads(heads) for heads, name in BY_HEADS.items()}
    return {
        "accuracy-by-data.svg": _picture(
            "Accuracy by training data: a CNN and two transformers",
            {name: MODELS[name].title for name in ARCHITECTURES},
            design.sizes,
            points,
        ),
        "accuracy-by-heads.svg": _picture(
            "Accuracy by training data: one transformer, more or fewer heads",
            titles,
            design.head_sizes,
            points,
        ),
    }


def _picture(
    title: str, names: dict[str, str], sizes: Sequence[int], points: dict[tuple[str, int], Point]
) -> LinePicture | None:
    """Return a picture with a line for each of the models ``names`` that is measured; None without any."""
    lines = []
    for model, name in names.items():
        measured = [points[model, size] for size in sizes if (model, size) in points]
        if measured:
            marks = (Mark(each.windows, each.accuracy, *each.interval) for each in measured)
            lines.append(Line(name, tuple(marks)))
    if not lines:
        return None
    return LinePicture(
        title, "training windows", "accuracy on unknown scenes", tuple(lines), chance=1 / len(LABELS)
    )


def tables(results: dict[Run, Result], points: dict[tuple[str, int], Point], design: Design) -> str:
    """Return the tables of the study in Markdown: accuracy, differences, processor time, learning rates."""
    heads = [name for _, name in sorted(BY_HEADS.items())]
    one_head = heads[0]
    return (
        "\n\n".join(
            (
                f"{sum(run.rate is None for run in results)} of {len(design.study_runs())} runs are done, "
                f"{design.steps:,} steps of {design.batch_size} windows each.",
                "Accuracy by model and number of training windows:",
                _grid(ARCHITECTURES, design.sizes, points, _accuracy_cell),
                "Accuracy minus that of the CNN:",
                _grid(
                    [name for name in ARCHITECTURES if name != CNN],
                    design.sizes,
                    points,
                    lambda point: _difference_cell(points.get((CNN, point.windows)), point),
                ),
                "Accuracy by heads:",
                _grid(heads, design.head_sizes, points, _accuracy_cell),
                "Accuracy minus that of one head:",
                _grid(
                    heads[1:],
                    design.head_sizes,
                    points,
                    lambda point: _difference_cell(points.get((one_head, point.windows)), point),
                ),
                f"Processor time and its energy, by an estimate of {ASSUMED_WATTS:g} W for a busy core; a "
                f"minute of video is {_A_MINUTE} windows side by side:",
                _costs(points),
                "Accuracy on validation windows by learning rate, in the search for it:",
                _rates(results, design),
            )
        )
        + "\n"
    )


def _grid(
    models: Sequence[str],
    sizes: Sequence[int],
    points: dict[tuple[str, int], Point],
    cell: Callable[[Point], str],
) -> str:
    """Return a table with a row for each model and a column for each size."""
    rows = [["model", *(f"{size:,}" for size in sizes)], ["---", *("---:" for _ in sizes)]]
    for model in models:
        cells = [cell(points[model, size]) if (model, size) in points else "" for size in sizes]
        rows.append([_row_title(model), *cells])
    return _markdown(rows)


def _row_title(model: str) -> str:
    """Return a model's title; in tables, the usual number of heads is stated, too."""
    dims = MODELS[model].dims
    heads = getattr(dims, "num_heads", None)
    title = MODELS[model].title
    return title if heads is None or str(heads) in title else f"{title}, {plural_heads(heads)}"


def _accuracy_cell(point: Point) -> str:
    low, high = point.interval
    return f"{point.accuracy:.3f} ({low:.3f} to {high:.3f})"


def _difference_cell(first: Point | None, second: Point) -> str:
    if first is None:
        return ""
    mean, (low, high) = difference(first, second)
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _costs(points: dict[tuple[str, int], Point]) -> str:
    """Return a table of each model's size, and what training it and classifying with it cost."""
    head = ["model", "parameters", "a training", "energy", "a minute of video", "energy"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for model in MODELS:
        runs = [point for (name, _), point in points.items() if name == model]
        if not runs:
            continue
        training_s = fmean(point.processor_s for point in runs)
        minute_s = _A_MINUTE * processor_s_per_window(model)
        rows.append(
            [
                _row_title(model),
                f"{runs[0].parameters:,}",
                f"{training_s:.0f} s",
                joules_text(estimated_joules(training_s)),
                f"{minute_s:.3f} s",
                joules_text(estimated_joules(minute_s)),
            ]
        )
    return _markdown(rows)


def _rates(results: dict[Run, Result], design: Design) -> str:
    """Return a table of the search for the learning rate of each architecture."""
    rows = [["model", *(f"{rate:g}" for rate in design.rates)], ["---", *["---:"] * len(design.rates)]]
    for model in ARCHITECTURES:
        found = [results.get(Run(model, design.search_windows, 0, rate)) for rate in design.rates]
        cells = ("" if result is None else f"{result.validation_accuracy:.3f}" for result in found)
        rows.append([_row_title(model), *cells])
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a table; the second row aligns the columns."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
