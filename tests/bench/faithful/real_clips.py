"""Compares maps of real clips with what the answers of the embedded models hang on.

T frames in a clip, H W C pixels.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from tests.bench.faithful.maps import Map, baselines, correlation, interval
from tests.bench.faithful.subject import Subject
from tubelet.models.explain.explanation import METHODS
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.spec import ModelSpec, Preprocessing
from tubelet.models.training.recipes import TASKS
from tubelet.service.cli.evaluation.dataset import LabelledVideo
from tubelet.service.cli.runs.video_sources import find_videos
from tubelet.service.cli.training.feed import plan_part, read_samples
from tubelet.service.cli.training.scene_split import scene_of
from tubelet.service.config.config import load_config
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import VideoMetadata, to_ns


class Case(NamedTuple):
    """One clip: its frames (T, H, W, C), and the model's answer."""

    frames: Tensor
    label: str


def tables(videos: Path, clips: int) -> Iterator[Table]:
    """Explain the first answers of each embedded model, and compare the maps."""
    chosen = _one_of_each_scene(videos)
    for task in TASKS.values():
        folder = ModelStore(ZOO).find(task.name)
        subject = Subject(folder.load(), folder.spec)
        cases = _cases(subject, chosen, clips)
        progress = track(cases, task.name, console=Console(stderr=True))
        maps = [_maps(subject, case, number) for number, case in enumerate(progress)]
        answers = ", ".join(
            f"{label} {n}" for label, n in Counter(case.label for case in cases).most_common()
        )
        yield _table(f"{task.name} ({task.family}): {len(cases)} clips: {answers}", subject, cases, maps)


def _one_of_each_scene(videos: Path) -> list[LabelledVideo]:
    """Return the first clip of each scene in a folder, by name."""
    found = find_videos([str(videos)], None, recursive=True)
    paths = sorted(Path(each.name) for each in found if each.problem is None)
    first = {scene_of(path, videos): path for path in reversed(paths)}
    return [LabelledVideo(path.name, str(path), label="") for path in sorted(first.values())]


def _cases(subject: Subject, videos: list[LabelledVideo], clips: int) -> list[Case]:
    """Read the middle window of clips until there are ``clips``, each with the model's answer."""
    cases = []
    samples = read_samples(videos[: 2 * clips], partial(_plan_middle, subject.spec), load_config().decode)
    for sample in samples:
        frames = torch.from_numpy(sample.units).flatten(0, 1)
        answer = int(subject.answer(frames[None]).argmax())
        cases.append(Case(frames, subject.spec.labels[answer]))
    return cases[:clips]


def _plan_middle(spec: ModelSpec, _: LabelledVideo, metadata: VideoMetadata) -> tuple[Plan, Preprocessing]:
    """Plan one window in the middle of a video."""
    window_ns = min(to_ns(spec.sampling.window_s), metadata.duration_ns)
    start_ns = (metadata.duration_ns - window_ns) // 2
    plan = plan_part(spec.sampling, spec.sampling.window_s, start_ns, start_ns + window_ns)
    return plan, spec.preprocessing


def _maps(subject: Subject, case: Case, number: int) -> dict[str, Map]:
    """Return the maps of a clip by method, and those that know nothing of the model."""
    maps: dict[str, Map] = {method: subject.explain(case.frames, case.label, method) for method in METHODS}
    return maps | baselines(case.frames, maps["rollout"].shape, number)


def _table(title: str, subject: Subject, cases: list[Case], maps: list[dict[str, Map]]) -> Table:
    """Compare maps by what answers lose and gain in their order, and with those of occlusion."""
    table = Table(title=title)
    against = ("random", "motion energy")
    columns = [
        f"{each}{ending}" for each in ("deletion", "insertion") for ending in ("", " - random", " - energy")
    ]
    for column in ("", *columns, "occlusion"):
        table.add_column(column, justify="right" if column else "left")
    curves = {
        (name, insert): np.array(
            [
                subject.curve(case.frames, case.label, each[name], insert=insert)
                for case, each in zip(cases, maps, strict=True)
            ]
        )
        for name in maps[0]
        for insert in (False, True)
    }
    for name in maps[0]:
        cells = []
        for insert in (False, True):
            own = curves[name, insert]
            differences = [
                interval(own - curves[other, insert]) if other != name else "" for other in against
            ]
            cells += [f"{own.mean():.3f}", *differences]
        agreement = np.array([correlation(each[name], each["occlusion"]) for each in maps])
        table.add_row(name, *cells, "" if name == "occlusion" else interval(agreement))
    return table
