"""``tubelet train --compare``: train in several ways without each part of the scenes, and measure each on it.

W windows, C clips, K classes.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

from tubelet.models.errors import CannotTrain, TrainingInterrupted
from tubelet.models.training.probe_fit import labels_by_clip, mean_by_clip
from tubelet.models.training.processes import started
from tubelet.models.training.scratch import SCRATCH_FAMILIES
from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.evaluation.page import save_page
from tubelet.service.cli.runs.output_paths import check_paths
from tubelet.service.cli.train.base import NONE
from tubelet.service.cli.train.data.checked_clips import Checked, labels_to_train, notes, usable_labels
from tubelet.service.cli.train.data.division import FOLDS
from tubelet.service.cli.train.data.scene_clusters import scene_folds
from tubelet.service.cli.train.levels.schedule import open_level
from tubelet.service.cli.train.made_report import processor_s_per_clip
from tubelet.service.cli.train.new_model import Answers, Level, Recipe, Request
from tubelet.service.cli.train.prepare import (
    Prepared,
    check_base,
    check_data,
    check_window,
    find_base,
    note_base,
    read_data,
    window_sampling,
)
from tubelet.service.cli.train.report.compared import (
    COMPARISON,
    ClassAnswers,
    Compared,
    LabelAnswers,
    comparison_lines,
    comparison_page,
    comparison_rows,
)
from tubelet.service.cli.train.run import train_level
from tubelet.service.cli.train.vectors.vector_table import has_vectors
from tubelet.service.config.config import Config
from tubelet.service.report.text import printable
from tubelet.service.types.model_ref import ModelRef

_LEVELS: dict[str, Level] = {"probe": "probe", "temporal": "temporal", "full": "full"}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to train: ``level`` on ``base``, or a ``family`` from random weights.

    ``base`` None is that of the request. ``variant`` is the name of one of torchvision's models.
    """

    name: str
    level: Level
    base: ModelRef | None = None
    family: str = ""
    variant: str = ""


def parse_ways(text: str) -> tuple[Way, ...]:
    """Parse ``LEVEL``, ``LEVEL@MODEL[:VERSION]`` and ``FAMILY[:VARIANT]``, separated by commas.

    Raises:
        CannotTrain: fewer than two are named, one is named twice, or one is none of these.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) < 2:
        raise CannotTrain(f"--compare names two ways to train or more, separated by commas; found {text!r}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CannotTrain(f"--compare names {twice} twice")
    return tuple(map(_parse_way, names))


def _parse_way(name: str) -> Way:
    """Parse the name of one way to train."""
    wanted, _, model = name.partition("@")
    if level := _LEVELS.get(wanted):
        base, _, version = model.partition(":")
        return Way(name, level, ModelRef(base, version) if base else None)
    family, _, variant = name.partition(":")
    if family in SCRATCH_FAMILIES:
        return Way(name, "full", ModelRef(NONE, ""), family, variant)
    raise CannotTrain(
        f"--compare: {name!r} is no level ({', '.join(_LEVELS)}; LEVEL@MODEL chooses what it starts from) "
        f"and no family to train from random weights ({', '.join(SCRATCH_FAMILIES)})"
    )


def compare_trainings(request: Request, ways: Sequence[Way], config: Config, *, as_json: bool) -> None:
    """Train in each of ``ways``, each part of the scenes left out in turn; print and write the comparison.

    No model is stored. Clips of the test split are left out.

    Raises:
        InvalidDataset: the data cannot be read, or no model can be trained on it.
        CannotTrain: a base cannot be trained, a training failed, or the user stopped it.
        OSError: the page cannot be written.
        UnknownModel, BrokenModel, MissingExtra: a base cannot be used.
    """
    if started() > 1:
        raise CannotTrain("--compare trains in one process: leave out torchrun")
    if request.out is not None:
        check_paths([request.out / COMPARISON])
    if has_vectors(request.data):
        raise CannotTrain(f"{request.data} has embeddings: --compare trains on videos")
    clips = tuple(clip for clip in read_data(request) if not clip.is_test)
    requests = [_request_of(way, request) for way in ways]
    bases = [find_base(own, config) for own in requests]
    labels_to_train(clips)
    for own, base in zip(requests, bases, strict=True):
        check_base(own.level, base)
        check_window(base, own.window_s)
    chosen = next((each for each in zip(requests, bases, strict=True) if each[0].base is None), None)
    if chosen is not None:
        note_base(*chosen)
    checked = check_data(clips, config)
    folds, count = _folds(checked)
    measured = []
    for way, own, base in zip(ways, requests, bases, strict=True):
        sampling = window_sampling(base, checked.survey.lengths_s, own.window_s)
        with _shown(way.name, count) as on_fold:
            measured.append(_measure(own, Prepared(base, checked, sampling), folds, config, on_fold))
    common = sorted(set.intersection(*(set(each.answers) for each in measured)))
    rows = comparison_rows(
        [
            Compared(
                way.name,
                _gather(each.answers, common),
                median(each.seconds),
                each.parameters,
                each.processor_s,
            )
            for way, each in zip(ways, measured, strict=True)
        ]
    )
    if request.out is not None:
        save_page(request.out / COMPARISON, comparison_page(request.data, rows, count))
    if as_json:
        print(json.dumps({"folds": count, "trainings": rows}, ensure_ascii=False))
    else:
        print("\n".join(comparison_lines(rows)))
        if request.out is not None:
            print(f"the page is {request.out / COMPARISON}")


def _request_of(way: Way, request: Request) -> Request:
    """Return the request of one way to train; a probe has no epochs."""
    base = request.base if way.base is None else way.base
    own = replace(request, level=way.level, base=base, family=way.family, variant=way.variant)
    return replace(own, epochs=None, minutes=None) if way.level == "probe" else own


def _folds(checked: Checked) -> tuple[NDArray[np.int64], int]:
    """Number the part of each clip, (C,), and return the number of parts.

    Raises:
        InvalidDataset: without one of the parts, no model can be trained.
    """
    labels = [clip.labels for clip in checked.survey.clips]
    count = min(FOLDS, len(set(checked.scenes.tolist())))
    folds = scene_folds(checked.scenes.tolist(), labels, count)
    for fold in range(count):
        try:
            usable_labels(_with_test(checked, folds == fold).survey.clips, checked.scenes)
        except InvalidDataset as error:
            raise InvalidDataset(f"with one part of the scenes left out in turn: {error}") from None
    return folds, count


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the trainings of one way gave: the answer for each clip, by its number, and the costs.

    An answer is whether the clip is right, (1,), or has its scores and which labels it has, (2, K).
    """

    answers: dict[int, NDArray[np.float64]]
    seconds: tuple[float, ...]
    parameters: int
    processor_s: float  # of a clip


def _measure(
    request: Request,
    prepared: Prepared,
    folds: NDArray[np.int64],
    config: Config,
    on_fold: Callable[[str], None],
) -> _Measured:
    """Train without each part of the scenes, and answer for the clips of that part.

    ``on_fold`` gets a line on each training.
    """
    answers: dict[int, NDArray[np.float64]] = {}
    seconds, parameters, processor_s = [], 0, 0.0
    for fold in range(int(folds.max()) + 1):
        started = time.monotonic()
        with TemporaryDirectory(prefix="tubelet-compare-") as folder:
            own = replace(request, out=Path(folder) / "run")
            held_out = replace(prepared, checked=_with_test(prepared.checked, folds == fold))
            try:
                run = open_level(own, held_out, own.folder(config), started)
                trained = train_level(held_out, run, config)
            except TrainingInterrupted:
                raise CannotTrain("interrupted: a comparison stores nothing, and starts anew") from None
        seconds.append(time.monotonic() - started)
        assert trained.test is not None
        own_answers = _answers(trained.test)
        answers |= own_answers
        on_fold(_fold_line(fold, own_answers, trained.recipe, seconds[-1]))
        parameters = sum(each.numel() for each in trained.model.parameters())
        processor_s = processor_s_per_clip(trained.model, prepared.sampling, trained.test)
    return _Measured(answers, tuple(seconds), parameters, processor_s)


def _with_test(checked: Checked, is_test: NDArray[np.bool_]) -> Checked:
    """Return the same clips, of which those that are ``is_test``, (C,), are the test split."""
    clips = zip(checked.survey.clips, is_test.tolist(), strict=True)
    marked = tuple(replace(clip, is_test=held_out) for clip, held_out in clips)
    return replace(checked, survey=replace(checked.survey, clips=marked))


def _answers(answers: Answers) -> dict[int, NDArray[np.float64]]:
    """Return the answer for each clip, the mean of its windows, by the number of the clip."""
    means, numbers = mean_by_clip(answers.calibrated, answers.clips)
    truth = labels_by_clip(answers.labels, answers.clips)
    if truth.ndim == 2:
        found = torch.stack((means.double().sigmoid(), truth.double()), dim=1)
    else:
        found = (means.argmax(dim=1) == truth)[:, None].double()
    return dict(zip(numbers.tolist(), found.numpy(), strict=True))


def _gather(answers: dict[int, NDArray[np.float64]], clips: Sequence[int]) -> ClassAnswers | LabelAnswers:
    """Return the answers for the clips with these numbers."""
    found = np.stack([answers[number] for number in clips])
    return ClassAnswers(found[:, 0] > 0) if found.ndim == 2 else LabelAnswers(found[:, 0], found[:, 1] > 0)


def _fold_line(fold: int, answers: dict[int, NDArray[np.float64]], recipe: Recipe, seconds: float) -> str:
    """Format what a training without one part of the scenes gave."""
    found = _gather(answers, sorted(answers))
    epochs = recipe.details.get("epochs")
    after = "" if epochs is None else f", epochs {epochs}"
    return f"part {fold + 1}: {found.measure} {found.value:.3f} of {len(found)} clips{after}, {seconds:.1f} s"


@contextmanager
def _shown(name: str, count: int) -> Iterator[Callable[[str], None]]:
    """Show a bar of the ``count`` trainings of a way; what is yielded prints the line of one.

    What a training says itself is not shown.
    """
    console, before = Console(stderr=True, highlight=False, markup=False, soft_wrap=True), notes.quiet
    columns = (SpinnerColumn(), "{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    notes.quiet = True
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(f"training {name}, each time without one part of the scenes", total=count)

            def on_fold(line: str) -> None:
                console.print(printable(f"{name}, {line}"))
                bar.advance(task)

            yield on_fold
    finally:
        notes.quiet = before
