"""Values of explanations: the question and the answer.

U steps in a window: the frames or tubelets that a model embeds apart from each other in time. A heads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Method = Literal["attention", "rollout", "relevance", "occlusion"]
Score = Callable[[Tensor], Tensor]
"""What is explained: a label's logit, or the difference of two, out of logits: (..., K) -> (...)."""
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class Question:
    """What to explain, and how.

    ``relevance`` and ``occlusion`` explain the logit of ``label``, or how far it is above that of
    ``against``. ``attention`` and ``rollout`` do not depend on a label. ``layer``, ``head`` and ``query``
    belong to ``attention``. Layers and heads count from 0. Layers are the attentions of a model in the order
    of their computation: the temporal ones of a factorised model after its spatial ones, two in each block of
    a divided model, over time and over space.
    """

    method: Method
    label: str | None = None
    against: str | None = None
    layer: int | None = None  # None: the last layer that attends to patches
    head: int | None = None  # None: the mean over heads
    query: tuple[int, int, int] | None = None  # step, row, column of a patch that attends; None: the read-out


@dataclass(frozen=True, slots=True)
class Mass:
    """Shares before they are scaled: ``patches`` (U, rows, columns) float64; ``elsewhere`` is on no patch."""

    patches: Tensor
    elsewhere: float


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A map of a window: ``map`` (U, rows, columns) float32, at least 0. It sums to 1 with ``on_no_patch``.

    ``on_no_patch`` is the share that ends on class tokens; it is 1, and the map zero, where a method finds
    nothing. ``runs`` counts the forward passes of occlusion, over one unit each, and ``steps_left_out`` the
    steps whose share is spread evenly over the picture, since the runs did not suffice to find its place.
    """

    question: Question
    map: Tensor
    on_no_patch: float
    runs: int = 0
    steps_left_out: int = 0

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.map.shape))
        return f"Explanation({self.question}, map {shape}, {self.on_no_patch:.0%} on no patch)"


@dataclass(frozen=True, slots=True, eq=False)
class HeadMaps:
    """The map of each head of each layer for one window: ``maps`` (layers, A, U, rows, columns) float32.

    Each map sums to 1 with its ``on_no_patch``, (layers, A) float32. ``attended`` names what each layer
    attends to: "patches", "patches of a frame", "frames" or "units".
    """

    maps: Tensor
    on_no_patch: Tensor
    attended: tuple[str, ...]

    def __repr__(self) -> str:
        return f"HeadMaps({' x '.join(map(str, self.maps.shape))})"


def scaled(mass: Mass) -> tuple[Tensor, float]:
    """Scale shares to a sum of 1: -> map (U, rows, columns) float32, share on no patch."""
    total = float(mass.patches.sum()) + mass.elsewhere
    if total <= 0:
        return torch.zeros(mass.patches.shape), 1.0
    return (mass.patches / total).float().cpu(), mass.elsewhere / total
