"""What training a head alone says: as text, as JSON, and on its card."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tubelet.service.cli.train.head_folder import LABELS, WEIGHTS
from tubelet.service.cli.train.probe_report import Figures, count_labels, figure_lines
from tubelet.service.cli.train.vector_level import HeadAlone

_USE = {
    "the vector": "the vector of a clip",
    "mean": "the mean of a clip's vectors",
    "mean and change": "the mean of a clip's vectors, then the mean absolute change from one to the next",
}


def head_lines(made: HeadAlone, figures: Figures, test: Figures | None, folder: Path) -> list[str]:
    """Return the report as lines of text."""
    probe = made.probe
    return [
        *_count_lines(made),
        *figure_lines(probe.recipe, probe.temperature, figures, test),
        f"wrote {WEIGHTS} and {LABELS} to {folder}",
        f"  logits = x @ weight.T + bias, x: {_USE[probe.vectors]}",
    ]


def head_card(title: str, made: HeadAlone, figures: Figures, test: Figures | None) -> str:
    """Return the text of CARD.md."""
    probe = made.probe
    lines = [
        f"# {title}",
        "",
        f"A head without a model: {made.why}.",
        f"{WEIGHTS} has weight (K, E) and bias (K), {LABELS} the K labels.",
        "",
        f"    logits = x @ weight.T + bias    # x: {_USE[probe.vectors]}",
        "    scores = softmax(logits)        # the temperature is part of the weights",
        "",
        "## Data and figures",
        "",
        *(
            f"- {line.strip()}"
            for line in (*_count_lines(made), *figure_lines(probe.recipe, probe.temperature, figures, test))
        ),
        *(f"- Note: {finding.sentence}" for finding in made.checked.findings),
    ]
    return "\n".join(lines) + "\n"


def head_json(made: HeadAlone, figures: Figures, test: Figures | None, folder: Path) -> dict[str, Any]:
    """Return the object that ``--json`` prints."""
    probe, recipe = made.probe, asdict(made.probe.recipe)
    return (
        recipe.pop("details")
        | recipe
        | {
            "model": None,
            "why": made.why,
            "folder": str(folder),
            "labels": count_labels([clip.label for clip in made.checked.survey.clips]),
            "scenes": len(set(made.checked.scenes.tolist())),
            "findings": [asdict(finding) for finding in made.checked.findings],
            "temperature": probe.temperature,
            "figures": asdict(figures),
            "test": None if test is None else asdict(test),
        }
    )


def _count_lines(made: HeadAlone) -> list[str]:
    """Return the lines on the labels and scenes."""
    counts = count_labels([clip.label for clip in made.checked.survey.clips])
    total = f"{sum(counts.values())} clips: " + ", ".join(f"{name} {count}" for name, count in counts.items())
    return [total, f"{len(set(made.checked.scenes.tolist()))} scenes"]
