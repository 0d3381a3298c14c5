"""Write the card of a camera-motion model: data, recipe, figures, limits."""

from dataclasses import dataclass, field
from pathlib import Path

from tubelet.models.costs import Cost, estimated_energy, measured_energy, window_processor_s
from tubelet.models.spec import Accuracy, ModelSpec
from tubelet.models.training.recipes import TASKS, Task
from tubelet.models.training.simulation.camera_path import (
    LABELS,
    MAX_STILL_SHIFT,
    MAX_STILL_TREMOR,
    MIN_ROLL,
    MIN_SHAKE,
    MIN_SHIFT,
    MIN_ZOOM,
)
from tubelet.models.training.trainer import Trainable, Trainer

TEMPLATE = Path(__file__).with_name("card.md")
LICENCE = "Apache-2.0"
SIMULATED = "simulated camera moves over held-out scenes"
RENDERED = "moves rendered by ffmpeg over held-out scenes, windows of {} s"
TARGETS = {"simulated": 0.98, "1": 0.985, "2": 0.985, "4": 0.985}
"""Test set -> top-1 accuracy to reach."""
WORST_TARGET = 0.75
"""Recall to reach by each class, on rendered moves."""
DEGREES = 57.29577951308232
"""Degrees in a radian."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A confusion matrix, (K, K) counts of windows by true label (row) and answer (column)."""

    counts: list[list[int]]
    total: int = field(init=False)
    top1: float = field(init=False)
    recalls: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        right = [row[k] for k, row in enumerate(self.counts)]
        object.__setattr__(self, "total", sum(map(sum, self.counts)))
        object.__setattr__(self, "top1", sum(right) / self.total)
        recalls = tuple(hits / max(1, sum(row)) for hits, row in zip(right, self.counts, strict=True))
        object.__setattr__(self, "recalls", recalls)


def spec_and_card(
    task: Task, version: str, trainer: Trainer[Trainable], measured: dict[str, dict[str, Figures]]
) -> tuple[ModelSpec, str]:
    """Return the spec and the card of the model that ``trainer`` trained.

    ``measured`` maps a model's name to its figures by test set: "simulated", or the seconds of a window.
    """
    model, step, preprocessing = trainer.average, trainer.step, trainer.average.preprocessing
    own = measured[task.name]
    spec = ModelSpec(
        name=task.name,
        version=version,
        family=task.family,
        description=task.description,
        licence=LICENCE,
        labels=LABELS,
        sampling=task.sampling,
        preprocessing=preprocessing,
        accuracy=tuple(
            Accuracy(dataset_name(name), round(figures.top1, 4), f"{figures.total} windows")
            for name, figures in own.items()
        ),
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    windows = step * task.recipe.batch_size
    card = TEMPLATE.read_text().format(
        name=task.name,
        description=task.description,
        version=version,
        family=task.family,
        dims=task.dims,
        millions=count / 1e6,
        frames=task.sampling.frames_per_window,
        units=task.sampling.units_per_window,
        frames_per_unit=task.sampling.frames_per_unit,
        size=preprocessing.width,
        min_shift=MIN_SHIFT,
        min_zoom=MIN_ZOOM,
        min_roll=MIN_ROLL * DEGREES,
        min_shake=MIN_SHAKE,
        still_shift=MAX_STILL_SHIFT,
        still_tremor=MAX_STILL_TREMOR,
        steps=step,
        batch_size=task.recipe.batch_size,
        windows=windows,
        learning_rate=task.recipe.learning_rate,
        decay=100 * task.recipe.decay_share,
        smoothing=task.recipe.label_smoothing,
        foreground=_foreground(task),
        legs=_legs(task.recipe.earlier_legs),
        second_leg=_second_leg(task.recipe.earlier_legs),
        classes=_class_table(own),
        verdict=_verdict(own),
        confusion=_confusion_table(own["2"]),
        comparison=_comparison(measured),
        costs=_costs(task, model, trainer.cost),
        licence=LICENCE,
    )
    return spec, card


def _costs(task: Task, model: Trainable, training: Cost | None) -> str:
    """Return the card's list of costs: of the training, if all its runs kept it, and of a window."""
    lines = []
    if training is not None:
        what = "Training, the last leg" if task.recipe.earlier_legs else "Training"
        lines += [
            f"- {what}: {training.processor_s:,.0f} s of processor time, {training.workers_s:,.0f} s of it "
            "to simulate windows in a worker",
            f"- Its energy: {measured_energy(training) or estimated_energy(training.processor_s)}",
        ]
    window_s = window_processor_s(model, task.sampling)
    return "\n".join(
        [*lines, f"- A window: {window_s * 1000:.3g} ms of processor time in float32, when published"]
    )


def _second_leg(earlier_legs: tuple[int, ...]) -> str:
    """Return the card's sentence on why there was more than one leg, or that nothing was tuned."""
    if not earlier_legs:
        return "Nothing was tuned on the held-out scenes."
    return (
        f"Each leg after the first was decided on after the figures at\n{_steps(earlier_legs)} were seen to "
        "miss a target; it began with a fresh optimiser from the running average."
    )


def _legs(earlier_legs: tuple[int, ...]) -> str:
    """Return the card's sentence on more than one leg; empty for one."""
    if not earlier_legs:
        return ""
    return (
        f"\n{len(earlier_legs) + 1} such legs were run, each with a warm-up; the earlier ended at "
        f"{_steps(earlier_legs)}.\nRate, fall, smoothing and foreground are those of the last leg."
    )


def _foreground(task: Task) -> str:
    """Return the card's words on what moved before the camera in training, and on screens that it filmed."""
    look = task.foreground
    objects, lively = (round(100 * share) for share in (look.object_share, look.lively_share))
    words = (
        f"{objects} % of the windows have foreign objects, up to {look.objects_max}, of a radius of up to "
        f"{look.radius[1]} sides,\nand {lively} % of these swing or change in place"
    )
    return (
        f"{words}; {task.screens} drawn screens were filmed beside the sources."
        if task.screens
        else f"{words}."
    )


def _steps(ends: tuple[int, ...]) -> str:
    """Return the names of steps in a sentence."""
    return f"step {ends[0]}" if len(ends) == 1 else "steps " + " and ".join(map(str, ends))


def dataset_name(name: str) -> str:
    """Return the name of a test set in specs and cards."""
    return SIMULATED if name == "simulated" else RENDERED.format(name)


def _column(name: str) -> str:
    """Return the heading of a test set's column."""
    return name if name == "simulated" else f"ffmpeg, {name} s"


def _class_table(own: dict[str, Figures]) -> str:
    """Return the table of recalls by label and test set."""
    rows = [
        ("label", *map(_column, own)),
        ("---", *("---:" for _ in own)),
        *((label, *(f"{f.recalls[k]:.3f}" for f in own.values())) for k, label in enumerate(LABELS)),
        ("**all**", *(f"**{f.top1:.3f}**" for f in own.values())),
        ("windows", *(str(f.total) for f in own.values())),
    ]
    return _table(rows)


def _confusion_table(figures: Figures) -> str:
    """Return the table of counts by true label and answer."""
    rows = [("true \\ answer", *LABELS), ("---", *("---:" for _ in LABELS))]
    rows += [(label, *map(str, row)) for label, row in zip(LABELS, figures.counts, strict=True)]
    return _table(rows)


def _comparison(measured: dict[str, dict[str, Figures]]) -> str:
    """Return the table of accuracies of all models that were measured."""
    names = ("simulated", "1", "2", "4")
    trained = {task.name: task.recipe.steps * task.recipe.batch_size for task in TASKS.values()}
    rows = [("model", "windows trained on", *map(_column, names)), ("---", "---:", *("---:" for _ in names))]
    rows += [
        (model, str(trained[model]), *(f"{sets[name].top1:.3f}" for name in names))
        for model, sets in measured.items()
    ]
    return _table(rows)


def _verdict(own: dict[str, Figures]) -> str:
    """Return a line for each test set: accuracy, worst class, and whether the target is met."""
    lines = []
    for name, target in TARGETS.items():
        figures = own[name]
        worst = min(range(len(LABELS)), key=lambda k: figures.recalls[k])
        met = figures.top1 >= target and (name == "simulated" or figures.recalls[worst] >= WORST_TARGET)
        wanted = f"{target:g}" + ("" if name == "simulated" else f" and no class under {WORST_TARGET}")
        lines.append(
            f"- {dataset_name(name)}: {figures.top1:.3f}, "
            f"worst {LABELS[worst]} at {figures.recalls[worst]:.3f}; "
            f"the target of {wanted} is {'met' if met else '**missed**'}."
        )
    return "\n".join(lines)


def _table(rows: list[tuple[str, ...]]) -> str:
    """Return rows of cells as a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
