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
        f"  logits = x @ weight.T + bias, x: {_USE[made.probe.vectors]}",
    ]


def head_card(title: str, made: HeadAlone, report: HeadReport) -> str:
    """Return the text of CARD.md."""
    scores = "sigmoid" if made.probe.held_out.labels.ndim == 2 else "softmax"
    lines = [
        f"# {title}",
        "",
        f"A head without a model: {made.why}.",
        f"{WEIGHTS} has weight (K, E) and bias (K), {LABELS} the K labels.",
        "",
        f"    logits = x @ weight.T + bias    # x: {_USE[made.probe.vectors]}",
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
    recipe = asdict(made.probe.recipe)
    return (
        {"model": None, "why": made.why, "folder": str(folder)}
        | recipe.pop("details")
        | recipe
        | {
            "curve": [point.json() for point in made.probe.recipe.curve],
            "labels": _counts(made),
            "clips": len(made.checked.survey.clips),
            "scenes": len(set(made.checked.scenes.tolist())),
            "findings": [asdict(finding) for finding in made.checked.findings],
            "temperature": made.probe.temperature,
        }
        | asdict(report)
    )


def _lines(made: HeadAlone, report: HeadReport) -> list[str]:
    """Return the lines on data and figures."""
    probe, counts = made.probe, ", ".join(f"{name} {count}" for name, count in _counts(made).items())
    return [
        f"{len(made.checked.survey.clips)} clips: {counts}",
        f"{len(set(made.checked.scenes.tolist()))} scenes",
        *figure_lines(probe.recipe, probe.temperature, report.figures, report.test),
        *threshold_lines(report.thresholds, report.precision or 1),
    ]


def _counts(made: HeadAlone) -> dict[str, int]:
    """Return the number of clips of each label."""
    return count_labels([label for clip in made.checked.survey.clips for label in clip.labels])
