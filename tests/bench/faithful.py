"""Measures whether explanations are true, on models whose evidence is at a known place and time.

    python -m tubelet.service.cli.training moving-objects --family FAMILY      # for each family, minutes
    python -m tests.bench.faithful [--runs DIR] [--clips N]

Clips are those of ``models/training/simulation/moving_objects.py``: four objects move as much as each other,
and the manner of one, in one span of four frames, is the label. Clips that the model gets wrong do not count.
For each family and method, beside motion energy (differences of frames), a centre prior and chance:

- mass: the share of the map in the right place and time; then that in the right time, and in the right place
- pointing: how often the map's maximum is in the right place and time
- deletion, insertion: the label's probability while the map's patches, the highest first, are replaced by the
  temporal median, or put into it, averaged over the way; low and high is good
- occlusion: Spearman's correlation with the map of occlusion
- random weights: Spearman's correlation with the map of the model whose head, then also the last half of the
  blocks, then all blocks have random weights (Adebayo et al., arXiv 1810.03292); low is good

Intervals are 95 %, by bootstrap over clips.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from tubelet.models.explain.explain import explain
from tubelet.models.explain.explanation import METHODS, Method, Question
from tubelet.models.spec import Family, ModelSpec
from tubelet.models.training.moving_objects import DIMS, PATCH, build, spec_of, start
from tubelet.models.training.samples import as_units
from tubelet.models.training.simulation.moving_objects import FRAMES, SIZE, SPAN_FRAMES, Clips, render
from tubelet.models.video_model import VideoModel

TEST_SEED = 7
BATCH = 32  # clips that are rendered at a time
COVERED = 0.2  # least share of a patch that the object covers, for the patch to be in the right place
FRACTIONS = np.linspace(0.0, 1.0, 9)[1:-1]  # of the patches, deleted or inserted
RANDOM_SAMPLES = 2000  # bootstrap
CENTRE_SIGMA = 0.25  # of the centre prior, sides of the picture
ROWS = SIZE // PATCH
Map = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """One clip: its frames (T, H, W, C), its label, and the truth on a map of (steps, rows, columns)."""

    frames: Tensor
    label: str
    span: int
    place: NDArray[np.bool_]

    def truth(self, steps: int) -> NDArray[np.bool_]:
        """Return the right place and time: -> (steps, rows, columns)."""
        frames = np.arange(FRAMES) // SPAN_FRAMES == self.span
        when = frames.reshape(steps, -1).any(axis=1)
        return when[:, None, None] & self.place


@dataclass(frozen=True, slots=True)
class Subject:
    """A trained model, its spec, and the clips that it gets right."""

    family: Family
    model: VideoModel
    spec: ModelSpec
    accuracy: float
    cases: list[Case]

    def units(self, frames: Tensor) -> Tensor:
        """Cut frames into the model's units: (T, H, W, C) -> (S, t, H, W, C)."""
        return as_units(frames[None], self.spec.sampling.frames_per_unit)[0]

    def explain(self, case: Case, method: Method, model: VideoModel | None = None) -> Map:
        """Explain a clip; the map sums to 1, unless all of it is on no patch."""
        label = case.label if method in ("relevance", "occlusion") else None
        found = explain(model or self.model, self.spec, self.units(case.frames), Question(method, label)).map
        values = found.double().numpy()
        return values / max(values.sum(), 1e-12)

    def probability(self, videos: Tensor, label: str) -> NDArray[np.float64]:
        """Return the probability of a label for videos (B, T, H, W, C): -> (B,)."""
        windows = torch.stack([self.units(video) for video in videos])
        return self.model(windows).softmax(dim=1)[:, self.spec.labels.index(label)].double().numpy()


def test_cases(family: Family, runs: Path, clips: int) -> Subject:
    """Load a trained model, and render clips until ``clips`` of them are classified rightly."""
    spec, trainer = spec_of(family), start(family)
    trainer.resume(runs / spec.name / "checkpoint.pt")
    model = trainer.average
    generator = torch.Generator().manual_seed(TEST_SEED)
    cases: list[Case] = []
    seen = right = 0
    while len(cases) < clips and seen < 20 * clips:
        batch = render(BATCH, generator)
        answers = model(as_units(batch.pixels, spec.sampling.frames_per_unit)).argmax(dim=1)
        seen, right = seen + BATCH, right + int((answers == batch.labels).sum())
        cases += [case_of(batch, i, spec) for i in (answers == batch.labels).nonzero()[:, 0].tolist()]
    return Subject(family, model, spec, right / seen, cases[:clips])


def case_of(batch: Clips, index: int, spec: ModelSpec) -> Case:
    """Take one clip out of a batch."""
    covered = batch.place[index].float().unflatten(0, (ROWS, PATCH)).unflatten(2, (ROWS, PATCH))
    place = (covered.mean(dim=(1, 3)) >= COVERED).numpy()
    return Case(batch.pixels[index], spec.labels[int(batch.labels[index])], int(batch.span[index]), place)


def motion_energy(case: Case, steps: int) -> Map:
    """Return the absolute differences of neighbouring frames by step and patch, scaled to a sum of 1."""
    frames = case.frames.double()
    changes = torch.zeros_like(frames)
    difference = (frames[1:] - frames[:-1]).abs()
    changes[1:] += difference / 2
    changes[:-1] += difference / 2
    cut = changes.view(steps, -1, ROWS, PATCH, ROWS, PATCH, 3)
    energy = cut.mean(dim=(1, 3, 5, 6)).numpy()
    return energy / energy.sum()


def centre_prior(steps: int) -> Map:
    """Return a Gaussian around the middle of the picture, the same in each step, scaled to a sum of 1."""
    axis = (np.arange(ROWS) + 0.5) / ROWS - 0.5
    bell = np.exp(-(axis**2) / (2 * CENTRE_SIGMA**2))
    prior = np.broadcast_to(np.outer(bell, bell), (steps, ROWS, ROWS))
    return prior / prior.sum()


def mass(values: Map, truth: NDArray[np.bool_]) -> float:
    """Return the share of a map in the right place and time; chance, if the map is zero."""
    total = values.sum()
    return float(values[truth].sum() / total) if total > 0 else float(truth.mean())


def time_mass(values: Map, truth: NDArray[np.bool_]) -> float:
    """Return the share of a map in the right time, wherever."""
    return mass(values, np.broadcast_to(truth.any(axis=(1, 2), keepdims=True), truth.shape))


def place_mass(values: Map, truth: NDArray[np.bool_]) -> float:
    """Return the share of a map in the right place, whenever."""
    return mass(values, np.broadcast_to(truth.any(axis=0, keepdims=True), truth.shape))


def pointing(values: Map, truth: NDArray[np.bool_]) -> float:
    """Return whether the largest value is in the right place and time; of several, the share that is."""
    return float(truth[values == values.max()].mean())


def curve(subject: Subject, case: Case, values: Map, *, insert: bool) -> float:
    """Return the mean probability of the label while patches are deleted or inserted, the highest first."""
    median = case.frames.median(dim=0).values.expand_as(case.frames)
    start, end = (median, case.frames) if insert else (case.frames, median)
    order = np.argsort(-values, axis=None, kind="stable")
    videos = []
    for fraction in FRACTIONS:
        chosen = np.zeros(values.size, dtype=bool)
        chosen[order[: round(fraction * values.size)]] = True
        mask = torch.from_numpy(chosen.reshape(values.shape))
        pixels = (
            mask.repeat_interleave(FRAMES // len(values), 0)
            .repeat_interleave(PATCH, 1)
            .repeat_interleave(PATCH, 2)
        )
        videos.append(torch.where(pixels[..., None], end, start))
    return float(subject.probability(torch.stack(videos), case.label).mean())


def correlation(one: Map, other: Map) -> float:
    """Return Spearman's correlation of two maps; 0 if one of them is the same everywhere."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def ranks(values: Map) -> NDArray[np.float64]:
    """Return the ranks of values, from 1; equal values share the mean of theirs."""
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[number.ravel()]


def randomised(subject: Subject) -> dict[str, VideoModel]:
    """Return models with random weights from the head down: the head, half of the blocks, all of them."""
    torch.manual_seed(TEST_SEED)
    fresh = build(subject.family).state_dict()
    trained = subject.model.state_dict()
    blocks = sorted(
        {
            name[: name.index("blocks.")] + "blocks." + name.split("blocks.")[1].split(".")[0]
            for name in trained
            if "blocks." in name
        },
        key=lambda block: (not block.startswith("temporal"), -int(block.rsplit(".", 1)[1])),
    )
    models = {}
    for name, count in (("head", 0), ("half", (len(blocks) + 1) // 2), ("all", len(blocks))):
        parts = tuple(f"{part}." for part in ("head", *blocks[:count]))
        model = copy.deepcopy(subject.model)
        model.load_state_dict(
            {key: fresh[key] if key.startswith(parts) else value for key, value in trained.items()}
        )
        models[name] = model
    return models


def interval(values: list[float]) -> str:
    """Return a mean with its 95 % interval, by bootstrap over clips."""
    samples = np.random.default_rng(0).choice(values, (RANDOM_SAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(samples, (2.5, 97.5))
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


ORDERS = ("motion energy", "centre prior", "random")  # what explanations have to beat


def maps_of(subject: Subject, case: Case, number: int) -> dict[str, Map]:
    """Return the maps of a clip by method, and those that know nothing of the model."""
    maps: dict[str, Map] = {method: subject.explain(case, method) for method in METHODS}
    steps = len(maps["rollout"])
    maps["motion energy"] = motion_energy(case, steps)
    maps["centre prior"] = centre_prior(steps)
    maps["random"] = np.random.default_rng(number).random(maps["rollout"].shape)
    return maps


def truth_table(subject: Subject, maps: list[dict[str, Map]]) -> Table:
    """Compare maps with the truth, and with what the model's answer hangs on."""
    table = Table(title=f"{subject.family}: {len(subject.cases)} clips, accuracy {subject.accuracy:.3f}")
    for column in ("", "mass", "x chance", "time", "place", "pointing", "deletion", "insertion", "occlusion"):
        table.add_column(column, justify="right" if column else "left")
    steps = len(maps[0]["rollout"])
    truths = [case.truth(steps) for case in subject.cases]
    chance = float(np.mean([truth.mean() for truth in truths]))
    for name in (*METHODS, *ORDERS):
        values = [each[name] for each in maps]
        pairs = list(zip(values, truths, strict=True))
        masses = [mass(*pair) for pair in pairs]
        curves = [
            [
                curve(subject, case, each, insert=insert)
                for case, each in zip(subject.cases, values, strict=True)
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


def randomised_table(subject: Subject, maps: list[dict[str, Map]]) -> Table:
    """Correlate maps with those of models with random weights."""
    table = Table(title=f"{subject.family}: correlation with the map of a model with random weights in")
    models = randomised(subject)
    for column in ("", *models):
        table.add_column(column, justify="right" if column else "left")
    for method in ("attention", "rollout", "relevance"):
        cells = []
        for model in models.values():
            others = [subject.explain(case, method, model) for case in subject.cases]
            cells.append(interval([correlation(a[method], b) for a, b in zip(maps, others, strict=True)]))
        table.add_row(method, *cells)
    return table


@torch.no_grad()
def main(
    runs: Annotated[Path, typer.Option(help="folder with the trained models")] = Path("runs"),
    clips: Annotated[int, typer.Option(min=2, help="of each family")] = 40,
) -> None:
    torch.set_num_threads(1)
    console = Console(width=180)
    for family in DIMS:
        if not (runs / spec_of(family).name / "checkpoint.pt").is_file():
            console.print(f"{family}: not trained in {runs}, left out")
            continue
        subject = test_cases(family, runs, clips)
        maps = [
            maps_of(subject, case, number)
            for number, case in enumerate(track(subject.cases, family, console=Console(stderr=True)))
        ]
        console.print(truth_table(subject, maps))
        console.print(randomised_table(subject, maps))


if __name__ == "__main__":
    typer.run(main)
