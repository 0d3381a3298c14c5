"""The page of a training: the data and its scenes, the result on unknown scenes, how to serve the model."""

from pathlib import Path
from typing import Any

from tubelet.service.cli.evaluation.measures import calibration
from tubelet.service.cli.evaluation.multilabel.label_page import label_parts
from tubelet.service.cli.evaluation.multilabel.label_report import make_label_report
from tubelet.service.cli.evaluation.page import SCRIPTS, answers_of, curve_of
from tubelet.service.cli.evaluation.report import make_report
from tubelet.service.cli.evaluation.selection import TRAINING_CLIPS
from tubelet.service.cli.train.data.checked_clips import Checked
from tubelet.service.cli.train.new_model import Trained
from tubelet.service.cli.train.report.clip_answers import clip_outcomes
from tubelet.service.cli.train.report.curves_page import epoch_charts, share_chart
from tubelet.service.cli.train.report.data_page import data_of
from tubelet.service.cli.train.report.multilabel_figures import clip_scores
from tubelet.service.cli.train.report.probe_report import Report
from tubelet.service.report.page import render_page

PAGE = "report.html"
"""The name of the page in its folder."""


def checks_page(name: str, data: Path, checked: Checked) -> str:
    """Return the page of the data alone, before a model ``name`` is trained."""
    return render_page(
        "training.html",
        ["table.js"],
        title=name,
        source=str(data),
        found=data_of(checked),
        run=None,
        labels=None,
    )


def training_page(data: Path, checked: Checked, trained: Trained, report: Report) -> str:
    """Return the page of a trained model."""
    if trained.held_out.labels.ndim == 2:
        return _label_page(data, checked, trained, report)
    answers, labels = trained.held_out, trained.labels
    outcomes = clip_outcomes(answers.calibrated, answers.clips, labels, checked.survey)
    before = make_report(clip_outcomes(answers.fitted, answers.clips, labels, checked.survey), labels)
    return render_page(
        "training.html",
        SCRIPTS,
        **_values(data, checked, report),
        labels=None,
        before=before.calibration,
        curve_before=curve_of(before.calibration),
        **answers_of(make_report(outcomes, labels), outcomes, "clip", TRAINING_CLIPS),
    )


def _label_page(data: Path, checked: Checked, trained: Trained, report: Report) -> str:
    """Return the page of a model of independent labels."""
    answers, survey = trained.held_out, checked.survey
    scores, truth = clip_scores(answers.calibrated, answers.labels, answers.clips)
    before = calibration(clip_scores(answers.fitted, answers.labels, answers.clips)[0].ravel(), truth.ravel())
    clips = [survey.clips[number].name for number in answers.clips.unique().tolist()]
    found = make_label_report(scores, truth, trained.labels)
    return render_page(
        "training.html",
        ["table.js"],
        **_values(data, checked, report),
        labels=label_parts(found, scores, truth, [(name, survey.pictures.get(name)) for name in clips]),
        before=before,
        curve_before=curve_of(before),
        report=found,
        curve=curve_of(found.calibration),
    )


def _values(data: Path, checked: Checked, report: Report) -> dict[str, Any]:
    """Return the values that the pages of all models have."""
    return {
        "title": f"{report.spec.name} {report.spec.version}",
        "source": str(data),
        "found": data_of(checked),
        "run": report,
        "devices": sorted({device for cost in report.costs.values() for device in cost.joules}),
        "charts": epoch_charts(report.recipe.details),
        "shares": share_chart(report.recipe.curve),
    }
