"""``tubelet train``: prepare the clips, train on them, measure, report, and write a model of the store."""

import json
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from tubelet.models.costs import PhaseCosts
from tubelet.models.errors import CannotTrain, TrainingDiverged
from tubelet.models.training.processes import process_group, rank, started, sum_costs
from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.evaluation.page import save_page
from tubelet.service.cli.evaluation.selection import TRAINING_CLIPS
from tubelet.service.cli.train.data.checked_clips import notes
from tubelet.service.cli.train.disk_space import full_disk_said
from tubelet.service.cli.train.level_choice import explained, keep_better
from tubelet.service.cli.train.levels.full import train_full
from tubelet.service.cli.train.levels.probe import train_probe
from tubelet.service.cli.train.levels.run_folder import COSTS, finish_run, name_lock
from tubelet.service.cli.train.levels.schedule import open_level
from tubelet.service.cli.train.levels.temporal import train_temporal
from tubelet.service.cli.train.levels.tuning import Run
from tubelet.service.cli.train.made_report import make_report
from tubelet.service.cli.train.new_model import Request, Trained, store_model
from tubelet.service.cli.train.prepare import Prepared, prepare
from tubelet.service.cli.train.report.clip_answers import clip_lines
from tubelet.service.cli.train.report.page import PAGE, training_page
from tubelet.service.cli.train.report.probe_report import Report, model_card, report_json, report_lines
from tubelet.service.cli.train.vectors.vector_run import train_vectors
from tubelet.service.cli.train.vectors.vector_table import has_vectors
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
    if has_vectors(request.data) and (
        request.level != "probe" or request.family or request.epochs or request.minutes
    ):
        raise CannotTrain(
            f"{request.data} has embeddings: only a probe can be trained on them, which has no epochs"
        )
    with process_group():
        if has_vectors(request.data):
            if rank() == 0:
                train_vectors(request, config, as_json=as_json)
            return
        _train_on_videos(request, _own_part(config), as_json=as_json)


def _own_part(config: Config) -> Config:
    """Return the configuration of this process, which shares its machine's decode workers with others."""
    workers = max(1, config.decode.workers // started(here=True))
    return config.model_copy(update={"decode": config.decode.model_copy(update={"workers": workers})})


def _train_on_videos(request: Request, config: Config, *, as_json: bool) -> None:
    """Train a model on videos; process 0 writes it into the store, and prints what it is worth."""
    started_s, folder = time.monotonic(), request.folder(config)
    with name_lock(request, folder):
        notes.quiet = rank() > 0
        costs = PhaseCosts()
        with costs.measure("checks"):
            request, prepared = prepare(request, config, costs)
        with full_disk_said(request, folder):
            run = open_level(request, prepared, folder, started_s)
            with nullcontext() if run is None or rank() > 0 else costs.kept_in(run.folder / COSTS):
                trained = _train(request, prepared, run, config)
        spent = sum_costs(costs.phases)
        if rank() > 0:
            return
        request = replace(request, level=trained.recipe.level)
        with notes.status("measuring and writing the model"):
            report = make_report(request, config, prepared, trained, spent)
            _store(request, folder, prepared, trained, report)
        if run is not None:
            finish_run(run.folder)
    if as_json:
        print(json.dumps(report_json(report), ensure_ascii=False))
    else:
        print("\n".join(map(printable, report_lines(report))))


def _train(request: Request, prepared: Prepared, run: Run | None, config: Config) -> Trained:
    """Train the level of a request, and perhaps its rival, of which the better one is returned."""
    if request.rival is None:
        return explained(train_level(prepared, run, config), request.reason)
    probe = train_level(prepared, None, config)
    try:
        rival = train_level(prepared, run, config)
    except (
        InvalidDataset,
        TrainingDiverged,
    ) as error:  # InvalidDataset: too few scenes to choose an epoch on
        return explained(probe, f"the level probe is taken, not the level {request.rival}: {error}")
    return keep_better(probe, rival, prepared.checked.scenes)


def train_level(prepared: Prepared, run: Run | None, config: Config) -> Trained:
    """Train the level of ``run``; a probe, which takes seconds, where it is None."""
    with prepared.costs.measure("training"):
        if run is None:
            return train_probe(prepared, config)
        if run.level == "full":
            return train_full(prepared, run, config)
        return train_temporal(prepared, run, config)


def _store(request: Request, folder: Path, prepared: Prepared, trained: Trained, report: Report) -> None:
    """Write the page and the model's folder."""
    texts = {TRAINING_CLIPS: clip_lines(prepared.checked, trained)}
    if report.page:
        page = training_page(request.data, prepared.checked, trained, report)
        if request.out is None:
            texts[PAGE] = page
        else:
            save_page(request.out / PAGE, page)
    store_model(folder, report.spec, trained.dims, trained.model, model_card(report), texts)
