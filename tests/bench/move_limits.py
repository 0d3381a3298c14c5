"""Measures how many windows of the camera moves' test no model can tell from those of another label.

    python -m tests.bench.move_limits --videos ../shared/videos [--batches 189]

The windows are those of ``python -m tubelet.service.cli.training evaluate``: 2,016, or more by ``--batches``.
Each is filmed again with every other label by the same draws: source, frames, times, tremor, objects, light,
blur, logo, noise, and as far as the other path allows the same view. What differs keeps its own distribution.

**The limit** is that of an observer who knows all draws but the label and the noise, and only has to choose
among these ten pictures. Knowing more never hurts, so no model is better on average. Two pictures overlap by
1 if they are equal, and by 2 Phi(-d / 2s) at a distance d under Gaussian noise of a standard deviation s. Of
ten pictures, a share of at most (10 - the weight of the overlaps' maximum spanning tree) / 10 can be told.
Distances are those before noise and compression, which make nothing easier to tell.

**The differences** are no proof. They are root mean squares to the most alike other label, of the pixels that
the model gets, in grey levels of 255. Beside them stands the share that the embedded model answers rightly.

T frames, H W C pixels, K labels.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from einops import rearrange
from numpy.random import Generator
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from tubelet.models.repository.repository import ModelStore
from tubelet.models.training.recipes import PREPROCESSING
from tubelet.models.training.samples import as_units
from tubelet.models.training.simulation.camera_path import (
    LABELS,
    MAX_STILL_TREMOR,
    Motion,
    draw_motion,
    draw_move,
    draw_tremor_scale,
)
from tubelet.models.training.simulation.camera_path import Path as CameraPath
from tubelet.models.training.simulation.dataset import WINDOW_S, SimulatedMoves
from tubelet.models.training.simulation.degradations import degrade, degrade_before_noise
from tubelet.models.training.simulation.render import SHRINK, place, place_in_source, render_view, view_sides
from tubelet.models.training.simulation.sources import Source
from tubelet.service.cli.training.__main__ import TEST_BATCHES, TEST_SEED
from tubelet.service.cli.training.sources import load_sources
from tubelet.service.config.config import load_config

EDGES = (0.0, 2.0, 4.0, 8.0, 16.0, 256.0)  # of differences, grey levels
RESAMPLES = 2000
MODEL = "camera-motion"
K = len(LABELS)


@dataclass(frozen=True, slots=True)
class Window:
    """A window of the test and what another label would have made of it.

    ``limit`` is the largest share of the ten labels that can be told, ``overlap`` and ``difference`` are
    those to the most alike other label. ``right`` says it of the model, for the window and its mirrored twin.
    """

    source: str
    label: str
    limit: float
    overlap: float
    difference: float
    right: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class Film:
    """A source filmed with all labels: ``clips`` (K, T, C, H, W) in 0..1.

    Labels that are not ``here`` (K,) would have been filmed elsewhere, and are told apart by that.
    """

    source: Source
    clips: Tensor
    here: NDArray[np.bool_]


class AllLabels(SimulatedMoves):
    """The windows of the test, each filmed with all labels by the same draws."""

    def measure(self, batch: int, right: NDArray[np.bool_]) -> list[Window]:
        """Return the windows in the first half of a batch; the other half are these, mirrored or reversed.

        ``right`` (batch size,) says which ones the model answers rightly.
        """
        rng = np.random.default_rng((self.seed, batch))
        half = self.batch_size // 2
        wanted = rng.permutation((batch * half + np.arange(half)) % K)
        filmed = [self._film_all(LABELS[label], rng) for label in wanted]
        seed = int(rng.integers(2**62))
        clean, noisy, strength = _degrade(torch.stack([each.clips for each in filmed], dim=1), seed)
        of_test = self[batch].units[:half]
        windows = []
        for number, (label, film) in enumerate(zip(wanted, filmed, strict=True)):
            shown = noisy[:, number]
            units = as_units(shown[label][None], self.sampling.frames_per_unit)[0]
            if not torch.equal(units, of_test[number]):
                raise AssertionError(f"window {number} of batch {batch} is not that of the test")
            distances, noise = _distances(shown.float()), float(strength[number])
            overlaps = _overlaps(clean[:, number], noise) if noise else (distances == 0).astype(float)
            overlaps[~film.here] = overlaps[:, ~film.here] = 0
            others = film.here & (np.arange(K) != label)
            rms = distances[label, others] / math.sqrt(shown[0].numel())
            limit = (K - _spanning_tree(overlaps)) / K
            overlap, difference = overlaps[label, others].max(initial=0), rms.min(initial=EDGES[-2])
            twins = bool(right[number]), bool(right[half + number])
            windows.append(
                Window(film.source.name, LABELS[label], limit, float(overlap), float(difference), twins)
            )
        return windows

    def _film_all(self, wanted: str, rng: Generator) -> Film:
        """Film the next window of ``rng`` with all labels."""
        apart = rng.spawn(1)[0]
        window_s = float(np.exp(rng.uniform(*np.log(WINDOW_S))))
        first = True
        while True:
            source = self.draw_source(rng, wanted)
            motion = draw_motion(wanted, window_s, self.sampling.frames_per_window, rng)
            before = copy.deepcopy(rng)
            clip = self.film(source, motion.path(), rng)
            if clip is not None:
                break
            # Another path might have fitted into the source before, and would then not be filmed in this one.
            first = False
            window_s = max(window_s * SHRINK, WINDOW_S[0])
        clips: list[Tensor | None] = [clip if label == wanted else None for label in LABELS]
        for number, label in enumerate(LABELS):
            if label != wanted and first:
                rival = _with_label(motion, wanted, label, window_s, apart).path()
                clips[number] = self._film_alike(source, motion.path(), rival, copy.deepcopy(before), apart)
        here = np.array([each is not None for each in clips])
        return Film(source, torch.stack([clip if each is None else each for each in clips]), here)

    def _film_alike(
        self, source: Source, path: CameraPath, rival: CameraPath, rng: Generator, apart: Generator
    ) -> Tensor | None:
        """Film ``rival`` as ``rng`` films ``path``, else by draws of ``apart``; None if it does not fit."""
        frames = self._source_frames(source, path, rng)
        height, width = frames.shape[1:3]
        affine = place_in_source(path, height, width, rng)
        sides, own_sides = (view_sides(each, height, width) for each in (rival, path))
        if affine is None or sides is None or own_sides is None:
            return None
        own_side = float(np.sqrt(np.linalg.det(affine[0, :, :2])) / np.exp(path.log_size[0]))
        taken = math.log(own_side)
        side = math.exp(_alike(taken, tuple(np.log(own_sides)), tuple(np.log(sides)), apart))
        own_starts, starts = _starts(path, own_side, height, width), _starts(rival, side, height, width)
        start = affine[0, :, 2] - own_side * path.affine()[0, :, 2]
        at = np.array([_alike(start[axis], own_starts[axis], starts[axis], apart) for axis in range(2)])
        low, high = np.array(starts).T
        part = (at - low) / np.maximum(high - low, 1e-9)
        clip = render_view(frames, place(rival, side, part, height, width), self.size)
        if rng.random() < self.foreground.object_share:
            self._add_objects(clip, rival, rng)
        return clip


def _with_label(motion: Motion, label: str, other: str, window_s: float, rng: Generator) -> Motion:
    """Return a motion with the label ``other`` that has as much of ``motion`` as its distribution allows."""
    kind, _, _ = label.partition("_")
    if kind == other.partition("_")[0]:
        signs = np.where(np.arange(4) == ("pan", "tilt", "zoom", "roll").index(kind), -1, 1)
        return replace(motion, move=motion.move * signs[:, None])
    scale = motion.tremor_scale
    if other == "shake":
        scale = 0.0
    elif label == "shake":
        scale = draw_tremor_scale(other, rng)
    elif other == "static" and scale > MAX_STILL_TREMOR:
        scale = rng.uniform(0, MAX_STILL_TREMOR)
    elif label == "static" and scale and rng.random() < 1 / 3:
        scale = rng.uniform(MAX_STILL_TREMOR, 1.5 * MAX_STILL_TREMOR)
    return replace(motion, move=draw_move(other, window_s, motion.times_s, rng), tremor_scale=scale)


def _starts(path: CameraPath, side: float, height: int, width: int) -> tuple[tuple[float, float], ...]:
    """Return the bounds in x and in y of where a path's origin may be in a source, pixels."""
    low, high = (place(path, side, np.full(2, part), height, width)[0, :, 2] for part in (0.0, 1.0))
    origin = side * path.affine()[0, :, 2]
    return tuple(zip(low - origin, high - origin, strict=True))


def _alike(taken: float, own: tuple[float, float], other: tuple[float, float], rng: Generator) -> float:
    """Draw uniformly between the bounds ``other``: ``taken``, uniform between ``own``, as often as possible.

    This is the maximal coupling of the two distributions.
    """
    ratio = (other[1] - other[0]) / max(own[1] - own[0], 1e-9)
    if other[0] <= taken <= other[1] and rng.random() * ratio < 1:
        return taken
    while True:
        drawn = rng.uniform(*other)
        if not own[0] <= drawn <= own[1] or rng.random() < 1 - ratio:
            return drawn


def _degrade(clips: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Degrade windows (K, B, T, C, H, W) by the same draws for each label.

    Returns them before noise, at the end as (K, B, T, H, W, C) uint8, and the strength of the noise (B,).
    """
    clean, noisy, strength = [], [], torch.zeros(0)
    for each in clips:
        before, strength = degrade_before_noise(each.clone(), torch.Generator().manual_seed(seed))
        pixels = degrade(each.clone(), torch.Generator().manual_seed(seed)).mul_(255).round_()
        clean.append(before)
        noisy.append(rearrange(pixels.to(torch.uint8), "b t c h w -> b t h w c"))
    return torch.stack(clean), torch.stack(noisy), strength


def _distances(clips: Tensor) -> NDArray[np.float64]:
    """Return the Euclidean distances between clips: (K, ...) -> (K, K)."""
    return np.array([[float((one - other).norm()) for other in clips] for one in clips])


def _overlaps(clips: Tensor, noise: float) -> NDArray[np.float64]:
    """Return the overlaps of Gaussians around clips, with a standard deviation: (K, ...) -> (K, K)."""
    return np.vectorize(math.erfc)(_distances(clips) / (2 * math.sqrt(2) * noise))


def _spanning_tree(weights: NDArray[np.float64]) -> float:
    """Return the weight of the maximum spanning tree of a full graph (K, K), by Prim's algorithm."""
    best, total = weights[0].copy(), 0.0
    left = np.arange(len(weights)) > 0
    while left.any():
        nearest = int(np.where(left, best, -1.0).argmax())
        total += float(best[nearest])
        left[nearest] = False
        best = np.maximum(best, weights[nearest])
    return total


def _limits(windows: Sequence[Window]) -> Table:
    """Return the table of limits, by kind of window."""
    table = Table(
        "windows", "number", "equal to another label within noise", "limit, 95 %", f"{MODEL}", box=None
    )
    kinds: dict[str, Callable[[Window], bool]] = {"all": lambda _: True}
    for folder in sorted({each.source.partition("/")[0] for each in windows}):
        kinds[f"of {folder}/"] = lambda each, folder=folder: each.source.startswith(f"{folder}/")
    kinds["static"] = lambda each: each.label == "static"
    for name, is_kind in kinds.items():
        chosen = [each for each in windows if is_kind(each)]
        low, high = _interval(chosen)
        table.add_row(
            name,
            str(2 * len(chosen)),
            f"{np.mean([each.overlap > 0.5 for each in chosen]):.4f}",
            f"{np.mean([each.limit for each in chosen]):.4f} ({low:.4f} to {high:.4f})",
            f"{np.mean([each.right for each in chosen]):.4f}",
        )
    return table


def _interval(windows: Sequence[Window]) -> tuple[float, float]:
    """Return the bootstrap interval of the mean limit, over sources."""
    names = sorted({each.source for each in windows})
    of_source = [[each.limit for each in windows if each.source == name] for name in names]
    sums, counts = np.array([(sum(limits), len(limits)) for limits in of_source]).T
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    low, high = np.percentile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (2.5, 97.5))
    return float(low), float(high)


def _differences(windows: Sequence[Window]) -> Table:
    """Return the table of differences to the most alike other label."""
    table = Table("difference", "windows", "share", f"{MODEL}", box=None)
    for low, high in pairwise(EDGES):
        chosen = [each for each in windows if low <= each.difference < high]
        if chosen:
            share, right = len(chosen) / len(windows), np.mean([each.right for each in chosen])
            table.add_row(f"{low:g} to {high:g}", str(2 * len(chosen)), f"{share:.4f}", f"{right:.4f}")
    return table


@torch.inference_mode()
def main(
    videos: Annotated[Path, typer.Option(help="the folder that the models were trained on")],
    cache: Annotated[Path, typer.Option(help="the training's decoded sources")] = Path("runs/sources"),
    batches: Annotated[int, typer.Option(min=1, help="of 32 windows")] = TEST_BATCHES,
) -> None:
    """Print the limits of the test, and the differences that its labels make."""
    torch.set_num_threads(1)
    entry = ModelStore().find(MODEL)
    model = entry.load()
    sources = load_sources(videos, cache, load_config().decode, test=True)
    moves = AllLabels(sources, entry.spec.sampling, PREPROCESSING.width, seed=TEST_SEED, batches=batches)
    windows: list[Window] = []
    for number in track(range(batches), "filming", console=Console(stderr=True)):
        batch = moves[number]
        right = model(batch.units).argmax(dim=1) == batch.labels
        windows += moves.measure(number, right.numpy())
    for table in (_limits(windows), _differences(windows)):
        Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
