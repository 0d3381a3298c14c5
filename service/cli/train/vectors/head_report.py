"""What training a head alone says: as text, as JSON, and on its card."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tubelet.service.cli.train.report.multilabel_figures import MultilabelFigures
from tubelet.service.cli.train.report.probe_report import Figures, count_labels, figure_lines
from tubelet.service.cli.train.report.thresholds import Threshold, threshold_lines
from tubelet.service.cli.train.vectors.head_folder import LABELS, WEIGHTS
from tubelet.service.cli.train.vectors.vector_level import HeadAlone

_USE = {
    "the vector": "the vector of a clip",
    "mean": "the mean of a clip's vectors",
    "mean and change": "the mean of a clip's vectors, then the mean absolute change from one to the next",
}
_ATTEND = (
    "t[i] = cos(pi * k * i / max(1, n - 1)), k = 1 to 4    # v: the n values of a clip, in the order of time",
    "a = softmax(v @ query.T + t @ time.T, axis=0)",
    "x = flatten(a.T @ v)",
)
_VALUES = {
    "mean": "a value is a vector",
    "mean and change": "a value is a vector, then its absolute change from the vector before, times "
    "n / (n - 1), of the first vector 0",
}


@dataclass(frozen=True, slots=True)
class HeadReport:
    """What a head alone is worth, with thresholds for ``precision`` if they are asked for."""

    figures: Figures | MultilabelFigures
    test: Figures | MultilabelFigures | None
    thresholds: dict[str, Threshold | None]
    precision: float | None


def head_lines(made: HeadAlone, report: HeadReport, folder: Path) -> list[str]:
    """Return the report as lines of text."""
    return [
        *_lines(made, report),
        f"wrote {WEIGHTS} and {LABELS} to {folder}",
        *(f"  {line}" for line in _formula(made)),
    ]


def _formula(made: HeadAlone) -> list[str]:
    """Return the lines that say how to apply the head."""
    probe = made.fitted.probe
    if probe.pooling is None:
        return [f"logits = x @ weight.T + bias    # x: {_USE[probe.vectors]}"]
    return [*_ATTEND, f"logits = x @ weight.T + bias    # {_VALUES[probe.vectors]}"]


def head_card(title: str, made: HeadAlone, report: HeadReport) -> str:
    """Return the text of CARD.md."""
    scores = "sigmoid" if made.fitted.held_out.labels.ndim == 2 else "softmax"
    attends = "" if made.fitted.probe.pooling is None else ", query (2, V) and time (2, 4)"
    lines = [
        f"# {title}",
        "",
        f"A head without a model: {made.why}.",
        f"{WEIGHTS} has weight (K, E) and bias (K){attends}, {LABELS} the K labels.",
        "",
        *(f"    {line}" for line in _formula(made)),
        f"    scores = {scores}(logits)        # the temperature is part of the weights",
        "",
        "## Data and figures",
        "",
        *(f"- {line.strip()}" for line in _lines(made, report)),
        *(f"- Note: {finding.sentence}" for finding in made.checked.findings),
    ]
    return "\n".join(lines) + "\n"


def head_json(made: HeadAlone, report: HeadReport, folder: Path) -> dict[str, Any]:
    """Return the object that ``--json`` prints."""
    recipe = asdict(made.fitted.recipe)
    return (
        {"model": None, "why": made.why, "folder": str(folder)}
        | recipe.pop("details")
        | recipe
        | {
            "curve": [point.json() for point in made.fitted.recipe.curve],
            "labels": _counts(made),
            "clips": len(made.checked.survey.clips),
            "scenes": len(set(made.checked.scenes.tolist())),
            "findings": [asdict(finding) for finding in made.checked.findings],
            "temperature": made.fitted.temperature,
        }
        | asdict(report)
    )


def _lines(made: HeadAlone, report: HeadReport) -> list[str]:
    """Return the lines on data and figures."""
    fitted, counts = made.fitted, ", ".join(f"{name} {count}" for name, count in _counts(made).items())
    return [
        f"{len(made.checked.survey.clips)} clips: {counts}",
        f"{len(set(made.checked.scenes.tolist()))} scenes",
        *figure_lines(fitted.recipe, fitted.temperature, report.figures, report.test),
        *threshold_lines(report.thresholds, report.precision or 1),
    ]


def _counts(made: HeadAlone) -> dict[str, int]:
    """Return the number of clips of each label."""
    return count_labels([label for clip in made.checked.survey.clips for label in clip.labels])
