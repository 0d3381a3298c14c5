"""The report of a trained model, made of what the checks found and what a level hands over."""

from tubelet.models.spec import Accuracy
from tubelet.service.cli.train.base import base_text
from tubelet.service.cli.train.new_model import Answers, Request, Trained, new_spec
from tubelet.service.cli.train.page import PAGE
from tubelet.service.cli.train.prepare import Prepared
from tubelet.service.cli.train.probe_report import Figures, Report, count_labels, measure
from tubelet.service.config.config import Config


def make_report(request: Request, config: Config, prepared: Prepared, trained: Trained) -> Report:
    """Measure a trained model on the scenes that it does not know, and gather all that is said of it."""
    base, checked = prepared.base, prepared.checked
    figures = figures_of(trained.held_out, trained.labels)
    low, high = figures.interval
    accuracy = Accuracy(
        f"{request.data.name}, {trained.recipe.measured_on}",
        round(figures.accuracy, 4),
        f"{figures.clips} clips, 95 % interval {low:.3f} to {high:.3f}",
    )
    return Report(
        spec=new_spec(request, base, trained.labels, prepared.sampling, trained.dims, accuracy),
        folder=str(request.folder(config)),
        page=str((request.out or request.folder(config)) / PAGE) if checked.background else "",
        base=base_text(base),
        labels=count_labels([checked.survey.clips[number].label for number in trained.used]),
        left_out=checked.survey.left_out,
        scenes=len(set(checked.scenes[list(trained.used)].tolist())),
        findings=checked.findings,
        background_apart=checked.background and checked.background[0],
        background_together=checked.background and checked.background[1],
        recipe=trained.recipe,
        temperature=trained.temperature,
        figures=figures,
        test=None if trained.test is None else figures_of(trained.test, trained.labels),
    )


def figures_of(answers: Answers, labels: tuple[str, ...]) -> Figures:
    """Measure a model's answers."""
    return measure(answers.calibrated, answers.fitted, answers.labels, answers.clips, labels)
