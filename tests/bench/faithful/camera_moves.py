"""Compares maps of camera-motion with the time in which the camera moves.

T frames in a clip, U steps in a map.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from tests.bench.faithful.maps import Map, Truth, baselines, centre_prior, correlation, interval, mass
from tests.bench.faithful.subject import Subject
from tubelet.models.explain.explanation import METHODS
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.training.recipes import SEED, TASKS
from tubelet.models.training.simulation.camera_path import LABELS, simulate_within
from tubelet.models.training.simulation.dataset import SimulatedMoves
from tubelet.service.cli.training.sources import load_sources
from tubelet.service.config.config import load_config

TASK = TASKS["factorised"]  # the only embedded model that has several steps and sees motion
MOVING_UNITS = (1, 2)  # in which the camera moves, of those of a window
LABELS_THAT_MOVE = LABELS[1:]


class Case(NamedTuple):
    """One clip: its frames (T, H, W, C), its label, and whether the camera moves in each step, (U,)."""

    frames: Tensor
    label: str
    moving: Truth


def tables(videos: Path, runs: Path, clips: int) -> Iterator[Table]:
    """Explain clips of held-out scenes that the model gets right, and compare the maps."""
    folder = ModelStore(ZOO).find(TASK.name)
    subject = Subject(folder.load(), folder.spec)
    sources = load_sources(videos, runs / "sources", load_config().decode, test=True)
    size = folder.spec.preprocessing.width
    camera = SimulatedMoves(sources, TASK.sampling, size, seed=SEED, batches=1)
    for units in MOVING_UNITS:
        cases, accuracy = _cases(subject, camera, units, clips)
        progress = track(cases, f"{units} units", console=Console(stderr=True))
        maps = [_maps(subject, case, number) for number, case in enumerate(progress)]
        whole = TASK.sampling.units_per_window
        title = f"the camera moves in {units} of {whole} units: {len(cases)} clips, accuracy {accuracy:.3f}"
        yield _table(title, cases, maps)


def _cases(subject: Subject, camera: SimulatedMoves, units: int, clips: int) -> tuple[list[Case], float]:
    """Film until the model gets ``clips`` clips right, each label as often; return its accuracy, too."""
    rng = np.random.default_rng((SEED, units))
    cases: list[Case] = []
    seen = 0
    while len(cases) < clips and seen < 20 * clips:
        case = _film(camera, LABELS_THAT_MOVE[seen % len(LABELS_THAT_MOVE)], units, rng)
        answer = subject.answer(case.frames[None]).argmax()
        seen += 1
        if subject.spec.labels[int(answer)] == case.label:
            cases.append(case)
    return cases, len(cases) / seen


def _film(camera: SimulatedMoves, label: str, units: int, rng: Generator) -> Case:
    """Film a clip in which the camera has a move in some units, an object passes by in all of them."""
    sampling = TASK.sampling
    t, whole = sampling.frames_per_unit, sampling.units_per_window
    first = int(rng.integers(whole - units + 1))
    moving = (np.arange(whole) >= first) & (np.arange(whole) < first + units)
    while True:
        path = simulate_within(
            label, sampling.window_s, sampling.frames_per_window, range(t * first, t * (first + units)), rng
        )
        clip = camera.film(camera.draw_source(rng), path, rng, object_share=1.0)
        if clip is not None:
            pixels = clip.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
            return Case(pixels, label, moving)


def _maps(subject: Subject, case: Case, number: int) -> dict[str, Map]:
    """Return the maps of a clip by method, and those that know nothing of the model."""
    maps: dict[str, Map] = {method: subject.explain(case.frames, case.label, method) for method in METHODS}
    grid = maps["rollout"].shape
    maps |= baselines(case.frames, grid, number)
    return maps | {"centre prior": centre_prior(grid, in_time=True)}


def _table(title: str, cases: list[Case], maps: list[dict[str, Map]]) -> Table:
    """Compare in time: how much of a map is in the right steps, and whether most is."""
    table = Table(title=title)
    for column in ("", "mass in the right time", "x chance", "pointing in time", "occlusion"):
        table.add_column(column, justify="right" if column else "left")
    chance = float(np.mean([case.moving.mean() for case in cases]))
    for name in maps[0]:
        in_time = [each[name].sum(axis=(1, 2)) for each in maps]
        masses = [mass(steps, case.moving) for steps, case in zip(in_time, cases, strict=True)]
        points = [float(case.moving[steps.argmax()]) for steps, case in zip(in_time, cases, strict=True)]
        agreement = [correlation(each[name], each["occlusion"]) for each in maps]
        table.add_row(
            name,
            interval(masses),
            f"{np.mean(masses) / chance:.2f}",
            interval(points),
            "" if name == "occlusion" else interval(agreement),
        )
    table.add_row("chance", f"{chance:.3f}", "1.00", f"{chance:.3f}")
    return table
