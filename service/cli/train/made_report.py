"""The report of a trained model, made of what the checks found and what a level hands over."""

from collections.abc import Mapping
from dataclasses import replace

from tubelet.models.costs import Cost, window_processor_s
from tubelet.models.spec import Accuracy, ModelSpec, Sampling
from tubelet.models.video_model import VideoModel
from tubelet.service.cli.train.base import base_text
from tubelet.service.cli.train.new_model import Answers, Request, Trained, new_spec
from tubelet.service.cli.train.prepare import Prepared
from tubelet.service.cli.train.report.multilabel_figures import MultilabelFigures, measure_labels
from tubelet.service.cli.train.report.page import PAGE
from tubelet.service.cli.train.report.probe_report import Figures, Report, count_labels, measure_classes
from tubelet.service.cli.train.report.thresholds import Threshold, find_thresholds
from tubelet.service.config.config import Config
from tubelet.service.report.text import decodable


def make_report(
    request: Request, config: Config, prepared: Prepared, trained: Trained, costs: Mapping[str, Cost]
) -> Report:
    """Measure a trained model on the scenes that it does not know, and gather all that is said of it.

    ``costs`` are those of the training's phases.
    """
    base, checked = prepared.base, prepared.checked
    figures, clips = figures_of(trained.held_out, trained.labels), checked.survey.clips
    return Report(
        spec=_spec(request, prepared, trained, figures),
        folder=str(request.folder(config)),
        page=str((request.out or request.folder(config)) / PAGE) if checked.background else "",
        base=base_text(base),
        labels=count_labels([label for number in trained.used for label in clips[number].labels]),
        left_out=checked.survey.left_out,
        scenes=len(set(checked.scenes[list(trained.used)].tolist())),
        findings=checked.findings,
        background_apart=checked.background and checked.background[0],
        background_together=checked.background and checked.background[1],
        recipe=trained.recipe,
        temperature=trained.temperature,
        figures=figures,
        test=None if trained.test is None else figures_of(trained.test, trained.labels),
        clips=len(trained.used),
        thresholds=thresholds_of(request, trained.held_out, trained.labels),
        precision=request.precision,
        costs=costs,
        clip_processor_s=processor_s_per_clip(trained.model, prepared.sampling, trained.held_out),
    )


def _spec(
    request: Request, prepared: Prepared, trained: Trained, figures: Figures | MultilabelFigures
) -> ModelSpec:
    """Return the specification of the model; that of independent labels has no accuracy."""
    if isinstance(figures, MultilabelFigures):
        spec = new_spec(request, prepared.base, trained.labels, prepared.sampling, trained.dims)
        return replace(spec, activation="sigmoid")
    low, high = figures.interval
    accuracy = Accuracy(
        f"{decodable(request.data.name)}, {trained.recipe.measured_on}",
        round(figures.accuracy, 4),
        f"{figures.clips} clips, 95 % interval {low:.3f} to {high:.3f}",
    )
    return new_spec(request, prepared.base, trained.labels, prepared.sampling, trained.dims, accuracy)


def processor_s_per_clip(model: VideoModel, sampling: Sampling, answers: Answers) -> float:
    """Return the processor time of the model for the windows of a clip in float32, seconds; without decoding.

    ``answers`` has as many windows of each clip as a server would answer for.
    """
    windows = len(answers.labels) / len(answers.clips.unique())
    return windows * window_processor_s(model, sampling)


def thresholds_of(request: Request, answers: Answers, labels: tuple[str, ...]) -> dict[str, Threshold | None]:
    """Return the thresholds of labels, if a precision is asked for."""
    return {} if request.precision is None else find_thresholds(answers, labels, request.precision)


def figures_of(answers: Answers, labels: tuple[str, ...]) -> Figures | MultilabelFigures:
    """Measure a model's answers."""
    measure = measure_classes if answers.labels.ndim == 1 else measure_labels
    return measure(answers.calibrated, answers.fitted, answers.labels, answers.clips, labels)
