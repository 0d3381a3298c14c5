"""``tubelet train``: prepare the clips, train on them, measure, report, and write a model of the store."""

import json
import time
from pathlib import Path

from tubelet.models.spec import Accuracy
from tubelet.models.training.processes import process_group, rank
from tubelet.service.cli.evaluation.page import save_page
from tubelet.service.cli.train.checked_clips import notes
from tubelet.service.cli.train.clip_answers import CLIPS, clip_lines
from tubelet.service.cli.train.new_model import Answers, Request, Trained, new_spec, store_model
from tubelet.service.cli.train.page import PAGE, training_page
from tubelet.service.cli.train.prepare import Prepared, prepare
from tubelet.service.cli.train.probe_level import train_probe
from tubelet.service.cli.train.probe_report import (
    Figures,
    Report,
    count_labels,
    measure,
    model_card,
    report_json,
    report_lines,
)
from tubelet.service.cli.train.run_folder import finish_run, name_lock
from tubelet.service.cli.train.schedule import open_level
from tubelet.service.cli.train.temporal_level import train_temporal
from tubelet.service.cli.train.tuning import Run
from tubelet.service.config.config import Config
from tubelet.service.report.text import printable


def train_model(request: Request, config: Config, *, as_json: bool) -> None:
    """Train a model, write it into the store, and print what it is worth.

    Raises:
        InvalidDataset: the data cannot be read, or no model can be trained on it.
        CannotTrain: the name is taken or not allowed, the base cannot be trained, or the store cannot be
            written.
        OSError: the page cannot be written.
        UnknownModel, BrokenModel, MissingExtra: the base cannot be used.
    """
    started_s, folder = time.monotonic(), request.folder(config)
    with process_group(), name_lock(request, folder):
        notes.quiet = rank() > 0
        prepared = prepare(request, config)
        run = open_level(request, prepared, folder, started_s)
        trained = train_probe(prepared, config) if run is None else _train(prepared, run, config)
        if rank() > 0:
            return
        report = _report(request, config, prepared, trained)
        _store(request, folder, prepared, trained, report)
        if run is not None:
            finish_run(run.folder)
    if as_json:
        print(json.dumps(report_json(report), ensure_ascii=False))
    else:
        print("\n".join(map(printable, report_lines(report))))


def _train(prepared: Prepared, run: Run, config: Config) -> Trained:
    """Train a level by gradient descent."""
    return train_temporal(prepared, run, config)


def _store(request: Request, folder: Path, prepared: Prepared, trained: Trained, report: Report) -> None:
    """Write the page and the model's folder."""
    texts = {CLIPS: clip_lines(prepared.checked, trained)}
    page = training_page(request.data, prepared.checked, trained, report)
    if request.out is None:
        texts[PAGE] = page
    else:
        save_page(request.out / PAGE, page)
    store_model(folder, report.spec, trained.dims, trained.model, model_card(report), texts)


def _report(request: Request, config: Config, prepared: Prepared, trained: Trained) -> Report:
    """Measure a trained model on the scenes that it does not know, and gather all that is said of it."""
    base, checked = prepared.base, prepared.checked
    figures = _figures(trained.held_out, trained.labels)
    low, high = figures.interval
    accuracy = Accuracy(
        f"{request.data.name}, {trained.recipe.measured_on}",
        round(figures.accuracy, 4),
        f"{figures.clips} clips, 95 % interval {low:.3f} to {high:.3f}",
    )
    return Report(
        spec=new_spec(request, base, trained.labels, prepared.sampling, trained.dims, accuracy),
        folder=str(request.folder(config)),
        page=str((request.out or request.folder(config)) / PAGE),
        base=f"{base.spec.name} {base.spec.version} (fingerprint {base.fingerprint})",
        labels=count_labels([checked.survey.clips[number].label for number in trained.used]),
        left_out=checked.survey.left_out,
        scenes=len(set(checked.scenes[list(trained.used)].tolist())),
        findings=checked.findings,
        background_apart=checked.background[0],
        background_together=checked.background[1],
        recipe=trained.recipe,
        temperature=trained.temperature,
        figures=figures,
        test=None if trained.test is None else _figures(trained.test, trained.labels),
    )


def _figures(answers: Answers, labels: tuple[str, ...]) -> Figures:
    """Measure a model's answers."""
    return measure(answers.calibrated, answers.fitted, answers.labels, answers.clips, labels)
