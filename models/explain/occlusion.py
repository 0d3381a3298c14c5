"""Occlusion (Zeiler and Fergus, arXiv 1311.2901) in time, then in space: what a score loses without a part.

Parts are replaced by the temporal median, which shows what stands still. Each step is replaced first; then,
from the step that mattered most on, each cell of a grid over its picture, as long as the runs last.
S units in a window, t frames in a unit, U steps in a window, D embedding width, K classes.
"""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from einops import repeat
from torch import Tensor, cat

from tubelet.models.explain.explanation import Mass, Score
from tubelet.models.video_model import VideoModel

MAX_RUNS = 256
"""Most forward passes of one unit, unless a window has more steps: each step needs one."""
MAX_CELLS = 7
"""Most rows, and most columns, of the grid of cells."""
MAX_STEPS_OF_UNIT = 8
"""Most steps of a unit whose family has no steps of its own."""


@dataclass(frozen=True, slots=True)
class Parts:
    """How a window is cut: time ``steps`` of a unit, ``rows`` and ``columns`` of the map."""

    steps: int
    rows: int
    columns: int


class Occluded(NamedTuple):
    """A map of occlusion, the number of runs, and the steps that were not looked at in space."""

    mass: Mass
    runs: int
    steps_left_out: int


class _Part(NamedTuple):
    """One occluded part: a step, and the rectangle of the picture, pixels."""

    step: int
    rows: slice
    columns: slice


def parts_of_frames(frames_per_unit: int) -> Parts:
    """Cut the units of a family without patches: into steps of as many frames each, and into cells."""
    steps = max(n for n in range(1, MAX_STEPS_OF_UNIT + 1) if frames_per_unit % n == 0)
    return Parts(steps, MAX_CELLS, MAX_CELLS)


@torch.no_grad()
def occlusion(
    model: VideoModel,
    window: Tensor,
    parts: Parts,
    score: Score,
    background: Tensor | None = None,
    max_runs: int = MAX_RUNS,
) -> Generator[None, None, Occluded]:
    """Explain the score of a window's logits: (S, t, H, W, C) uint8 -> Occluded.

    ``background`` (H, W, C) uint8 stands in for what is occluded; by
    default, the temporal median of the window. A part without which the score rises has no share. The share
    of a step is divided among its cells by what each of them costs; evenly, if none costs anything or if the
    runs did not suffice.
    """
    if background is None:
        background = window.flatten(0, 1).median(dim=0).values
    occluder = _Occluder(model, window, parts, score, background)
    yield from occluder.start()
    height, width = window.shape[2:4]
    steps = len(window) * parts.steps
    whole = [_Part(step, slice(height), slice(width)) for step in range(steps)]
    lost = yield from occluder.losses(whole)
    patches = repeat(lost / (parts.rows * parts.columns), "u -> u r c", r=parts.rows, c=parts.columns).clone()
    row_of, column_of = _cell_of(parts.rows), _cell_of(parts.columns)
    cells = [(rows, columns) for rows in _sides(row_of, height) for columns in _sides(column_of, width)]
    mattering = [step for step in lost.argsort(descending=True, stable=True).tolist() if lost[step] > 0]
    placed = mattering[: max(0, max_runs - steps) // len(cells)]
    for step in placed:
        of_cells = yield from occluder.losses([_Part(step, *cell) for cell in cells])
        if of_cells.sum() > 0:
            shares = of_cells.view(int(row_of[-1]) + 1, -1) / of_cells.sum()
            shares = shares / row_of.bincount()[:, None] / column_of.bincount()
            patches[step] = lost[step] * shares[row_of][:, column_of]
    return Occluded(Mass(patches, 0.0), steps + len(placed) * len(cells), len(mattering) - len(placed))


def _cell_of(count: int) -> Tensor:
    """Return the cell of each of ``count`` rows or columns of the map: -> (count,) int64, ascending."""
    return torch.arange(count) * min(count, MAX_CELLS) // count


def _sides(cell_of: Tensor, pixels: int) -> list[slice]:
    """Return where each cell lies along a side of ``pixels``."""
    counts = cell_of.bincount().tolist()
    ends = [end * pixels // len(cell_of) for end in accumulate(counts, initial=0)]
    return [slice(start, end) for start, end in pairwise(ends)]


class _Occluder:
    """Runs a model over a window with parts replaced by ``background``."""

    def __init__(
        self,
        model: VideoModel,
        window: Tensor,
        parts: Parts,
        score: Score,
        background: Tensor,
    ) -> None:
        self._model, self._window, self._steps = model, window, parts.steps
        self._score, self._background = score, background
        self._frames = window.shape[1] // parts.steps  # of a step
        self._embeddings, self._whole = window, window  # until the start

    def start(self) -> Generator[None, None, None]:
        """Embed and classify the whole window."""
        embeddings = []
        for units in self._window.split(self._model.cpu_batch_units):
            yield
            embeddings.append(self._model.encode(units))
        self._embeddings = cat(embeddings)
        self._whole = self._score(self._model.classify(self._embeddings[None]))

    def losses(self, parts: list[_Part]) -> Generator[None, None, Tensor]:
        """Return what the score loses without each part, 0 where it gains: -> (parts,) float64."""
        losses, size = [], self._model.cpu_batch_units
        for batch in (parts[start : start + size] for start in range(0, len(parts), size)):
            yield
            units = torch.stack([self._without(part) for part in batch])
            windows = repeat(self._embeddings, "s d -> b s d", b=len(batch)).clone()
            numbers = [part.step // self._steps for part in batch]
            windows[range(len(batch)), numbers] = self._model.encode(units)
            losses.append(self._whole - self._score(self._model.classify(windows)))
        return cat(losses).double().cpu().clamp_min(0)

    def _without(self, part: _Part) -> Tensor:
        """Return the unit of a part with the part replaced: -> (t, H, W, C) uint8."""
        unit = self._window[part.step // self._steps].clone()
        first = part.step % self._steps * self._frames
        here = (part.rows, part.columns)
        unit[first : first + self._frames, *here] = self._background[here]
        return unit
