"""Drop path: residual branches that training leaves out at random, the same ones in any number of processes.

Huang et al., arXiv 1603.09382. B windows of a batch, R rows of a branch's output for each of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from tubelet.models.families.layers import Attention, Mlp
from tubelet.models.training.samples import Batch


@dataclass(frozen=True, slots=True)
class _Rows:
    """What decides the rows that are left out: the step, and the places of windows in the whole batch."""

    step: int
    places: list[int]
    total: int


_rows: ContextVar[_Rows] = ContextVar("_rows")


@contextmanager
def drawn_rows(step: int, batch: Batch) -> Iterator[None]:
    """Let ``step`` and the place of a window in its batch decide the branches that are left out for it."""
    count = len(batch.labels)
    places = list(range(count)) if batch.places is None else list(batch.places)
    token = _rows.set(_Rows(step, places, batch.total or count))
    try:
        yield
    finally:
        _rows.reset(token)


def set_drop_path_(model: nn.Module, rate: float) -> None:
    """Let residual branches be left out in training, with rates that grow with depth up to ``rate``.

    Branches are those of tubelet's transformer blocks and timm's; torchvision's models have their own rates.
    The model is to be trained within ``drawn_rows``.
    """
    branches = [
        module
        for name, module in model.named_modules()
        if isinstance(module, Attention | Mlp)
        or (name.endswith("drop_path") and isinstance(module, nn.Identity))
    ]
    for number, module in enumerate(branches):
        module.register_forward_hook(partial(_drop, number, rate * (number + 1) / len(branches)))


def _drop(number: int, rate: float, module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Replace a branch's output (B R, ...) by zero for a share of the rows, and scale up the others.

    The rows of a window follow each other. All of the batch are drawn, whichever windows are here.
    """
    if not module.training or not rate:
        return output
    rows = _rows.get()
    of_window, rest = divmod(len(output), len(rows.places))
    assert not rest
    drawn = np.random.default_rng((rows.step, number)).random((rows.total, of_window))[rows.places]
    kept = torch.from_numpy((drawn >= rate).ravel() / (1 - rate)).to(output)
    return output * kept.view(-1, *[1] * (output.ndim - 1))
