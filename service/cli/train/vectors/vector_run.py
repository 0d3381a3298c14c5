"""``tubelet train`` on a file of embeddings: train, measure, report, and write a model or the head alone."""

import json
from pathlib import Path
from typing import Any

from tubelet.models.costs import PhaseCosts
from tubelet.service.cli.evaluation.selection import TRAINING_CLIPS
from tubelet.service.cli.train.made_report import figures_of, make_report, thresholds_of
from tubelet.service.cli.train.new_model import Request, store_model
from tubelet.service.cli.train.report.clip_answers import clip_lines
from tubelet.service.cli.train.report.probe_report import model_card, report_json, report_lines
from tubelet.service.cli.train.vectors.head_folder import write_head
from tubelet.service.cli.train.vectors.head_report import HeadReport, head_card, head_json, head_lines
from tubelet.service.cli.train.vectors.vector_level import HeadAlone, train_on_vectors
from tubelet.service.config.config import Config
from tubelet.service.report.text import printable


def train_vectors(request: Request, config: Config, *, as_json: bool) -> None:
    """Train on a file of embeddings; write a model, or the head alone; without pictures, no page.

    Raises:
        InvalidDataset, CannotTrain, BrokenModel, MissingExtra: as ``train_on_vectors``.
    """
    head_folder = request.out or Path(f"head-{request.name}-{request.version}")
    costs = PhaseCosts()
    with costs.measure("training"):
        made = train_on_vectors(request, config, head_folder)
    if isinstance(made, HeadAlone):
        lines, content = _write_head(request, made, head_folder)
    else:
        prepared, trained = made
        report = make_report(request, config, prepared, trained, costs.phases)
        texts = {TRAINING_CLIPS: clip_lines(prepared.checked, trained)}
        store_model(
            request.folder(config), report.spec, trained.dims, trained.model, model_card(report), texts
        )
        lines, content = report_lines(report), report_json(report)
    print(json.dumps(content, ensure_ascii=False) if as_json else "\n".join(map(printable, lines)))


def _write_head(request: Request, made: HeadAlone, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Write the folder of a head alone; return the report as text and as JSON."""
    fitted = made.fitted
    report = HeadReport(
        figures=figures_of(fitted.held_out, made.labels),
        test=None if fitted.test is None else figures_of(fitted.test, made.labels),
        thresholds=thresholds_of(request, fitted.held_out, made.labels),
        precision=request.precision,
    )
    card = head_card(f"{request.name} {request.version}", made, report)
    write_head(folder, fitted.probe, fitted.temperature, made.labels, card)
    return head_lines(made, report, folder), head_json(made, report, folder)
