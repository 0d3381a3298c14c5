"""Compares maps with the place and time of the object whose manner of moving is the label.

B clips, T frames in a clip, H W C pixels.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from tests.bench.faithful.maps import (
    Map,
    Truth,
    baselines,
    correlation,
    interval,
    mass,
    place_mass,
    pointing,
    time_mass,
)
from tests.bench.faithful.subject import Subject
from tubelet.models.explain.explanation import METHODS
from tubelet.models.spec import Family
from tubelet.models.training.moving_objects import PATCH, build, spec_of, start
from tubelet.models.training.simulation.moving_objects import FRAMES, SIZE, SPAN_FRAMES, Clips, render
from tubelet.models.video_model import VideoModel

TEST_SEED = 7
BATCH = 32  # clips that are rendered at a time
COVERED = 0.2  # least share of a patch that the object covers, for the patch to be in the right place
ROWS = SIZE // PATCH


@dataclass(frozen=True, slots=True)
class Case:
    """One clip: its frames (T, H, W, C), its label, and the truth on a map of (steps, rows, columns)."""

    frames: Tensor
    label: str
    span: int
    place: Truth

    def truth(self, steps: int) -> Truth:
        """Return the right place and time: -> (steps, rows, columns)."""
        frames = np.arange(FRAMES) // SPAN_FRAMES == self.span
        when = frames.reshape(steps, -1).any(axis=1)
        return when[:, None, None] & self.place


def tables(family: Family, runs: Path, clips: int) -> Iterator[Table]:
    """Explain clips that the model of a family gets right, and compare the maps."""
    subject, cases, accuracy = _subject(family, runs, clips)
    progress = track(cases, family, console=Console(stderr=True))
    maps = [_maps(subject, case, number) for number, case in enumerate(progress)]
    title = f"{family}: {len(cases)} clips, accuracy {accuracy:.3f}"
    yield _truth_table(title, subject, cases, maps)
    yield _randomised_table(family, subject, cases, maps)


def _subject(family: Family, runs: Path, clips: int) -> tuple[Subject, list[Case], float]:
    """Load a trained model; render clips until it gets ``clips`` of them right; return its accuracy, too."""
    spec, trainer = spec_of(family), start(family)
    trainer.resume(runs / spec.name / "checkpoint.pt")
    subject = Subject(trainer.average, spec)
    generator = torch.Generator().manual_seed(TEST_SEED)
    cases: list[Case] = []
    seen = right = 0
    while len(cases) < clips and seen < 20 * clips:
        batch = render(BATCH, generator)
        is_right = subject.answer(batch.pixels).argmax(dim=1) == batch.labels
        seen, right = seen + BATCH, right + int(is_right.sum())
        cases += [_case(batch, index, spec.labels) for index in is_right.nonzero()[:, 0].tolist()]
    return subject, cases[:clips], right / seen


def _case(batch: Clips, index: int, labels: tuple[str, ...]) -> Case:
    """Take one clip out of a batch."""
    covered = batch.place[index].float().unflatten(0, (ROWS, PATCH)).unflatten(2, (ROWS, PATCH))
    place = (covered.mean(dim=(1, 3)) >= COVERED).numpy()
    return Case(batch.pixels[index], labels[int(batch.labels[index])], int(batch.span[index]), place)


def _maps(subject: Subject, case: Case, number: int) -> dict[str, Map]:
    """Return the maps of a clip by method, and those that know nothing of the model."""
    maps: dict[str, Map] = {method: subject.explain(case.frames, case.label, method) for method in METHODS}
    return maps | baselines(case.frames, (len(maps["rollout"]), ROWS, ROWS), number)


def _truth_table(title: str, subject: Subject, cases: list[Case], maps: list[dict[str, Map]]) -> Table:
    """Compare maps with the truth, and with what the model's answer hangs on."""
    table = Table(title=title)
    for column in ("", "mass", "x chance", "time", "place", "pointing", "deletion", "insertion", "occlusion"):
        table.add_column(column, justify="right" if column else "left")
    truths = [case.truth(len(maps[0]["rollout"])) for case in cases]
    chance = float(np.mean([truth.mean() for truth in truths]))
    for name in maps[0]:
        values = [each[name] for each in maps]
        pairs = list(zip(values, truths, strict=True))
        masses = [mass(*pair) for pair in pairs]
        curves = [
            [
                subject.curve(case.frames, case.label, each, insert=insert)
                for case, each in zip(cases, values, strict=True)
            ]
            for insert in (False, True)
        ]
        agreement = [correlation(each[name], each["occlusion"]) for each in maps]
        table.add_row(
            name,
            interval(masses),
            f"{np.mean(masses) / chance:.2f}",
            f"{np.mean([time_mass(*pair) for pair in pairs]):.3f}",
            f"{np.mean([place_mass(*pair) for pair in pairs]):.3f}",
            interval([pointing(*pair) for pair in pairs]),
            *map(interval, curves),
            "" if name == "occlusion" else interval(agreement),
        )
    table.add_row("chance", f"{chance:.3f}", "1.00")
    return table


def _randomised_table(
    family: Family, subject: Subject, cases: list[Case], maps: list[dict[str, Map]]
) -> Table:
    """Correlate maps with those of models with random weights."""
    table = Table(title=f"{family}: correlation with the map of a model with random weights in")
    models = _randomised(family, subject.model)
    for column in ("", *models):
        table.add_column(column, justify="right" if column else "left")
    for method in ("attention", "rollout", "relevance"):
        cells = []
        for model in models.values():
            others = [subject.explain(case.frames, case.label, method, model) for case in cases]
            cells.append(interval([correlation(a[method], b) for a, b in zip(maps, others, strict=True)]))
        table.add_row(method, *cells)
    return table


def _randomised(family: Family, trained: VideoModel) -> dict[str, VideoModel]:
    """Return models with random weights from the head down: the head, half of the blocks, all of them."""
    torch.manual_seed(TEST_SEED)
    fresh, weights = build(family).state_dict(), trained.state_dict()
    blocks = sorted(
        {
            name[: name.index("blocks.")] + "blocks." + name.split("blocks.")[1].split(".")[0]
            for name in weights
            if "blocks." in name
        },
        key=lambda block: (not block.startswith("temporal"), -int(block.rsplit(".", 1)[1])),
    )
    models = {}
    for name, count in (("head", 0), ("half", (len(blocks) + 1) // 2), ("all", len(blocks))):
        parts = tuple(f"{part}." for part in ("head", *blocks[:count]))
        models[name] = copy.deepcopy(trained)
        models[name].load_state_dict(
            {key: fresh[key] if key.startswith(parts) else value for key, value in weights.items()}
        )
    return models
