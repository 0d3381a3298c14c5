"""The end of ``tubelet evaluate`` on clips with any number of labels: the report, its files, its page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.evaluation.evaluation_output import EvaluationOutput, print_evaluation
from tubelet.service.cli.evaluation.multilabel.label_page import label_parts
from tubelet.service.cli.evaluation.multilabel.label_report import (
    LabelReport,
    Scores,
    Truth,
    label_report_json,
    label_report_text,
    make_label_report,
)
from tubelet.service.cli.evaluation.outcomes import Outcome
from tubelet.service.cli.evaluation.page import by_reason
from tubelet.service.cli.evaluation.report_text import cost_text, seen_note, windowing_text
from tubelet.service.report.page import render_page


def check_multilabel(model: str, labels: Sequence[str], *, is_independent: bool, most: int) -> None:
    """Refuse to measure a model on clips with several labels where it does not score each label.

    Raises:
        InvalidDataset: its scores are not independent, or an answer cannot have all of them.
    """
    if not is_independent:
        raise InvalidDataset(
            f"the data has several labels of a clip, divided by ';', but {model} gives each clip one: its "
            "scores add up to 1"
        )
    if len(labels) > most:
        raise InvalidDataset(
            f"{model} has {len(labels)} labels, and an answer has at most {most}: clips with several labels "
            "need the scores of all"
        )


def print_label_report(
    outcomes: Sequence[Outcome],
    labels: tuple[str, ...],
    divider: str,
    run: dict[str, Any],
    output: EvaluationOutput,
) -> None:
    """Write report.json, print the report, and write its page.

    ``divider`` is between the labels of an outcome.

    Raises:
        InvalidDataset: an answer lacks scores.
        OSError: a file cannot be written.
    """
    scores, truth = _arrays(outcomes, labels, divider)
    report = make_label_report(scores, truth, labels)
    print_evaluation(
        run | label_report_json(report),
        label_report_text(report),
        "report.json and results.jsonl",
        lambda: _page(report, scores, truth, outcomes, run),
        output,
    )


def _arrays(outcomes: Sequence[Outcome], labels: tuple[str, ...], divider: str) -> tuple[Scores, Truth]:
    """Return the scores of all labels, (C, K), and whether each clip has them."""
    rows = [outcome.scores for outcome in outcomes if outcome.scores is not None]
    if len(rows) < len(outcomes):
        raise InvalidDataset("some results lack the scores of all labels: evaluate into another --out")
    named = [set(outcome.label.split(divider)) for outcome in outcomes]
    truth = np.array([[label in each for label in labels] for each in named])
    return np.stack(rows).astype(float), truth


def _page(
    report: LabelReport,
    scores: Scores,
    truth: Truth,
    outcomes: Sequence[Outcome],
    run: dict[str, Any],
) -> str:
    """Return the page of a report."""
    seen = run.get("seen_in_training")
    return render_page(
        "label_evaluation.html",
        ["table.js"],
        title=f"{run['model']} {run['version']}",
        windowing=windowing_text(run),
        run=run,
        notes=[seen_note(seen, report.clips, run["model"])] if seen else [],
        cost=cost_text(run),
        failures=by_reason(run["skipped"]),
        report=report,
        labels=label_parts(report, scores, truth, [(each.video, each.thumbnail) for each in outcomes]),
    )
