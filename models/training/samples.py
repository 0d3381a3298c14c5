"""What training and evaluation read: labelled windows, and batches of them.

B windows, S units in a window, t frames in a unit, T = S t, H W C pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor


class Sample(NamedTuple):
    """A window with its true label: ``units`` (S, t, H, W, C) uint8; ``id`` names the clip that has it."""

    units: NDArray[np.uint8]
    label: str
    id: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch: ``units`` (B, S, t, H, W, C) uint8, ``labels`` (B,) int64, ``flow`` (B, T - 1, 4) float32.

    ``labels`` are (B, K) of 0 and 1 where they are independent of each other. ``flow`` is the motion of the
    content from each frame to the next, see ``camera_path.Path.flow``; None where it is not known.
    ``targets`` (B, K) float32 are the weights of all labels in the loss, where they are mixed or balanced; of
    independent labels those of having each one and of not having it, (B, K, 2). ``total`` is the number of
    windows of the batch in all processes, None in a single one; ``places`` are those of these windows among
    them, None where all are here. Where embeddings are trained on, ``units`` are (B, S, D) float32.
    """

    units: Tensor
    labels: Tensor
    flow: Tensor | None = None
    targets: Tensor | None = None
    total: int | None = None
    places: tuple[int, ...] | None = None


def make_batches(samples: Iterable[Sample], labels: Sequence[str], size: int) -> Iterator[Batch]:
    """Yield batches of ``size`` samples in their order, the last one smaller; labels become their index."""
    remaining = iter(samples)
    while group := list(islice(remaining, size)):
        units = torch.from_numpy(np.stack([sample.units for sample in group]))
        yield Batch(units, torch.tensor([labels.index(sample.label) for sample in group]))


def as_units(clips: Tensor, frames_per_unit: int) -> Tensor:
    """Cut windows into units: (B, T, H, W, C) -> (B, S, t, H, W, C)."""
    return rearrange(clips, "b (s t) h w c -> b s t h w c", t=frames_per_unit)
