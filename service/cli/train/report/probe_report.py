"""What training a probe says: the figures, the report as text and as JSON, and the card of the model.

W windows, C clips, K classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from tubelet.models.costs import Cost
from tubelet.models.spec import ModelSpec
from tubelet.models.training.probe_fit import labels_by_clip, mean_by_clip
from tubelet.service.cli.evaluation.measures import Interval, calibration_error, wilson_interval
from tubelet.service.cli.train.data.data_checks import Finding
from tubelet.service.cli.train.new_model import Recipe
from tubelet.service.cli.train.report.calibration_errors import (
    CalibrationErrors,
    error_lines,
    measure_errors,
    span,
)
from tubelet.service.cli.train.report.cost_lines import card_cost_lines, cost_lines
from tubelet.service.cli.train.report.multilabel_figures import (
    MultilabelFigures,
    clip_scores,
    multilabel_lines,
)
from tubelet.service.cli.train.report.thresholds import Threshold, threshold_lines

_MAX_LISTED = 8  # findings, and clips that are left out, as text; JSON has all
_MAX_REASONS = 3  # of more clips that are left out


@dataclass(frozen=True, slots=True)
class Figures(CalibrationErrors):
    """What a probe is worth on clips that it does not know.

    ``recalls`` has the share of each label's clips that are right, None where none of its clips is measured.
    """

    clips: int
    accuracy: float
    interval: Interval
    recalls: dict[str, float | None]


_UNCHANGED = {
    "probe": "its spatial stage is unchanged",
    "temporal": "its spatial stage is unchanged",
    "full": "all of it was trained",
}


@dataclass(frozen=True, slots=True)
class Report:
    """All that a run of training reports."""

    spec: ModelSpec
    folder: str
    page: str  # "" where there is none
    base: str
    labels: dict[str, int]  # clips of each label
    left_out: dict[str, str]
    scenes: int
    findings: tuple[Finding, ...]
    background_apart: float | None  # None: there are no pictures
    background_together: float | None
    recipe: Recipe
    temperature: float
    figures: Figures | MultilabelFigures
    test: Figures | MultilabelFigures | None
    clips: int
    costs: Mapping[str, Cost]  # of the training's phases
    clip_processor_s: float  # of the model, for the windows of a clip
    thresholds: dict[str, Threshold | None] = field(default_factory=dict)  # for ``precision``
    precision: float | None = None


def measure_classes(
    calibrated: Tensor, fitted: Tensor, labels: Tensor, clips: Tensor, names: Sequence[str]
) -> Figures:
    """Compute the figures of logits, (W, K), with and without temperature, for labels and clips, (W,)."""
    logits, _ = mean_by_clip(calibrated, clips)
    before, _ = mean_by_clip(fitted, clips)
    truth = labels_by_clip(labels, clips).numpy()
    is_right = logits.argmax(dim=1).numpy() == truth
    recalls = {
        name: float(is_right[truth == number].mean()) if (truth == number).any() else None
        for number, name in enumerate(names)
    }
    errors = measure_errors(
        _scores(before, truth),
        _scores(logits, truth),
        _scores(fitted, labels.numpy()),
        _scores(calibrated, labels.numpy()),
        clips.numpy(),
    )
    return Figures(
        clips=len(truth),
        accuracy=float(is_right.mean()),
        interval=wilson_interval(int(is_right.sum()), len(truth)),
        recalls=recalls,
        **asdict(errors),
    )


def clip_ece(logits: Tensor, labels: Tensor, clips: Tensor) -> float:
    """Return the calibration error of clips: (W, K), labels (W,) or (W, K), (W,) -> a number."""
    if labels.ndim == 2:
        scores, has = clip_scores(logits, labels, clips)
        return calibration_error(scores.ravel(), has.ravel())
    means, _ = mean_by_clip(logits, clips)
    return calibration_error(*_scores(means, labels_by_clip(labels, clips).numpy()))


def report_json(report: Report) -> dict[str, Any]:
    """Return the object that ``--json`` prints."""
    content = asdict(report)
    del content["spec"]
    recipe = content.pop("recipe")
    model = {
        "model": report.spec.name,
        "version": report.spec.version,
        "window_s": report.spec.sampling.window_s,
    }
    curve = [point.json() for point in report.recipe.curve]
    return model | recipe.pop("details") | recipe | {"curve": curve} | content


def report_lines(report: Report) -> list[str]:
    """Return the report as lines of text, after those of ``check_lines``."""
    return [
        *_count_lines(report),
        f"a window: {report.spec.sampling.window_s:g} s, {report.spec.sampling.frames_per_window} frames; "
        f"base: {report.base}",
        *figure_lines(report.recipe, report.temperature, report.figures, report.test),
        *threshold_lines(report.thresholds, report.precision or 1),
        *cost_lines(report.costs, report.clip_processor_s),
        f"wrote {report.spec.name} {report.spec.version} to {report.folder}",
        *([f"the page is {report.page}"] if report.page else []),
        f"  tubelet classify clip.mp4 --model {report.spec.name}",
        "  tubelet serve",
    ]


def figure_lines(
    recipe: Recipe,
    temperature: float,
    figures: Figures | MultilabelFigures,
    test: Figures | MultilabelFigures | None,
) -> list[str]:
    """Return the lines on what was trained, and what it is worth."""
    return [
        f"{recipe.level}: {recipe.head}, temperature {temperature:.3g}",
        *(f"  {reason}" for reason in recipe.reasons),
        *(f"note: {warning}" for warning in recipe.warnings),
        *_measured_lines(figures, recipe.measured_on),
        *([] if test is None else _measured_lines(test, "the test split")),
        *(
            f"trained on {point.share:.0%} of the clips, {point.clips}: {point.measure} {point.value:.3f} "
            f"({span(point.interval)})"
            for point in recipe.curve
        ),
    ]


def _measured_lines(figures: Figures | MultilabelFigures, measured_on: str) -> list[str]:
    """Return the lines on what a model is worth."""
    if isinstance(figures, MultilabelFigures):
        return multilabel_lines(figures, measured_on)
    return [
        f"on {measured_on}: {_accuracy(figures)}",
        *(f"  {name}: {_share(recall)}" for name, recall in figures.recalls.items()),
        *error_lines(figures),
    ]


def check_lines(left_out: Mapping[str, str], findings: Sequence[Finding]) -> list[str]:
    """Return lines on the clips that are left out, and on what stands out about the others."""
    lines = [f"left out {name}: {reason}" for name, reason in islice(left_out.items(), _MAX_LISTED)]
    if len(left_out) > _MAX_LISTED:
        reasons = Counter(list(left_out.values())[_MAX_LISTED:]).most_common()
        shown = "; ".join(f"{reason} ({count})" for reason, count in reasons[:_MAX_REASONS])
        others = "; and other reasons" if len(reasons) > _MAX_REASONS else ""
        lines.append(f"left out {len(left_out) - _MAX_LISTED} more, --json names them all: {shown}{others}")
    lines += [f"note: {finding.sentence}" for finding in findings[:_MAX_LISTED]]
    if len(findings) > _MAX_LISTED:
        lines.append(f"note: {len(findings) - _MAX_LISTED} more; --json lists them all")
    return lines


def _count_lines(report: Report) -> list[str]:
    """Return the lines on the labels and scenes."""
    counts = ", ".join(f"{name} {count}" for name, count in report.labels.items())
    total = report.clips
    frequent = f"the most frequent label {max(report.labels.values()) / total:.2f}"
    if report.background_apart is None:
        return [f"{total} clips: {counts}", f"{report.scenes} scenes; {frequent}"]
    right = "right" if isinstance(report.figures, Figures) else "of labels in common"
    return [
        f"{total} clips: {counts}",
        f"{report.scenes} scenes; the background alone (the nearest median picture) has "
        f"{report.background_apart:.2f} {right} with scenes kept apart, {report.background_together:.2f} by "
        f"clip; {frequent}",
    ]


def model_card(report: Report) -> str:
    """Return the text of CARD.md."""
    spec = report.spec
    lines = [
        f"# {spec.name} {spec.version}",
        "",
        spec.description,
        "",
        f"- Base: {report.base}, licence {spec.licence}; {_UNCHANGED[report.recipe.level]}",
        f"- Trained: {report.recipe.head}",
        *(f"- Choice: {reason}" for reason in report.recipe.reasons),
        f"- Temperature: {report.temperature:.4g}, part of the head's weights",
        *(f"- Note: {warning}" for warning in report.recipe.warnings),
        f"- A window: {spec.sampling.frames_per_window} frames over {spec.sampling.window_s:g} s",
        "",
        "## Data and figures",
        "",
        *map(_item, (*_count_lines(report), *check_lines(report.left_out, report.findings))),
        *map(_item, _measured_lines(report.figures, report.recipe.measured_on)),
        *([] if report.test is None else map(_item, _measured_lines(report.test, "the test split"))),
        *map(_item, threshold_lines(report.thresholds, report.precision or 1)),
        "",
        "## Costs",
        "",
        *map(_item, card_cost_lines(report.costs, report.clip_processor_s)),
        "",
        "## Limits",
        "",
        *map(_item, _limits(report)),
    ]
    return "\n".join(lines) + "\n"


def _limits(report: Report) -> list[str]:
    """Return what the model and its figures do not tell."""
    sampling, picture = report.spec.sampling, report.spec.preprocessing
    answer = "one of its labels" if report.spec.activation == "softmax" else "a score of each label alone"
    return [
        f"A video of something else gets {answer}, too: all clips of the training had a label.",
        f"It sees {picture.width}x{picture.height} pixels, and {sampling.frames_per_window} frames of a "
        f"window of {sampling.min_window_s:g} to {sampling.max_window_s:g} s; what is smaller or quicker is "
        "lost.",
        f"The figures are of {report.scenes} scenes of one data set; other cameras, places and light were "
        "not measured, and neither was how the scores are calibrated there.",
        "Scenes are groups that the data names, else clips with like pictures: two recordings of one place "
        "may count as two scenes. Intervals take clips as independent; clips of one scene are not.",
    ]


def _item(line: str) -> str:
    """Return a line of text as an item of a list, or of a list in it if it is indented."""
    return f"  - {line.strip()}" if line.startswith("  ") else f"- {line}"


def count_labels(labels: Sequence[str]) -> dict[str, int]:
    """Count the clips of each label, in the order of labels."""
    return dict(sorted(Counter(labels).items()))


def _scores(logits: Tensor, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the best labels, and whether they are right: (N, K), (N,) -> (N,), (N,)."""
    scores, best = logits.softmax(dim=1).max(dim=1)
    return scores.numpy().astype(float), best.numpy() == truth


def _accuracy(figures: Figures) -> str:
    """Format an accuracy with its interval."""
    return f"{figures.accuracy:.3f} of {figures.clips} clips ({span(figures.interval)}, 95 %)"


def _share(recall: float | None) -> str:
    """Format the share of a label's clips that are right."""
    return "none of its clips is measured" if recall is None else f"{recall:.3f}"
