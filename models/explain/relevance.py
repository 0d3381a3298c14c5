"""Relevance of tokens to a result (Chefer et al., arXiv 2103.15679), by one backward pass of a logit.

The row of the read-out goes through the layers from the last to the first: r <- r + r R, where R is the mean
over heads of max(0, dA A), A the weights and dA their gradient. The start of the row is taken off in the end,
so that a map holds what the layers added. S units in a window, N units in a batch, A heads, L tokens of a
unit, D embedding width, K classes.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, cat

from tubelet.models.explain.explanation import Mass, Score
from tubelet.models.explain.transformer import Chain, Path, States, Transformer
from tubelet.models.explain.weights import Attend, Gradients, attending, backward


@torch.no_grad()
def relevance(transformer: Transformer, window: Tensor, score: Score) -> Generator[None, None, Mass]:
    """Explain the score of a window's logits: (S, t, H, W, C) uint8 -> Mass.

    In a factorised model, the rows of units are scaled to a sum of 1, then multiplied by the relevance of the
    units: the gradient of a unit's weights holds that relevance already, which would count twice.
    """
    spatial, temporal, head = transformer.spatial, transformer.temporal, transformer.model.head
    runs, vectors = [], []
    for batch in window.split(transformer.model.cpu_batch_units):
        run = yield from _run(spatial, batch)
        runs.append(run)
        vectors.append(spatial.vectors(run[-1]))
    units = cat(vectors)
    if temporal is None:
        gradient = _gradient(lambda vectors: score(head(vectors)).mean(), units)
        rows = yield from _rows_of_units(spatial, runs, gradient)
        return transformer.mass(rows / len(units))
    run = yield from _run(temporal, units[None])
    gradient = _gradient(lambda vectors: score(head(vectors)).sum(), temporal.vectors(run[-1]))
    way = _WayBack(temporal, run, gradient)
    yield from way.go()
    rows = yield from _rows_of_units(spatial, runs, way.gradient[0][0, 1:])
    sums = rows.sum(dim=1, keepdim=True)
    shares = torch.where(sums > 0, rows / sums.where(sums > 0, 1), spatial.start)
    return transformer.mass(shares * way.added[0, 1:, None], float(way.added[0, 0]))


def _run(chain: Chain, batch: Tensor) -> Generator[None, None, list[States]]:
    """Run a chain over a batch: -> what each block gets, then what the last one returns."""
    run = [chain.embed(batch)]
    for block in chain.blocks:
        yield
        run.append(block(run[-1]))
    return run


def _rows_of_units(chain: Chain, runs: list[list[States]], gradient: Tensor) -> Generator[None, None, Tensor]:
    """Go back through the runs of batches, whose vectors have ``gradient`` (S, D): -> rows (S, L)."""
    added, sizes = [], [len(run[0][0]) for run in runs]
    for run, part in zip(runs, gradient.split(sizes), strict=True):
        way = _WayBack(chain, run, part)
        yield from way.go()
        added.append(way.added)
    return cat(added)


class _WayBack:
    """The way from the vectors of a chain that has run, with their ``gradient`` (N, D), to its first block.

    ``gradient`` becomes that of each block's input in turn. States are taken off ``run``, which frees them.
    """

    def __init__(self, chain: Chain, run: list[States], gradient: Tensor) -> None:
        self._chain, self._run = chain, run
        self.gradient: States = (gradient,)
        self.rows = chain.start.expand(len(gradient), -1)

    @property
    def added(self) -> Tensor:
        """What the layers have added to the rows: (N, L) float64."""
        return self.rows - self._chain.start

    def go(self) -> Generator[None, None, None]:
        """Go to the first block, and yield before each block."""
        self._back(lambda states: (self._chain.vectors(states),))
        for block in reversed(self._chain.blocks):
            yield
            with ExitStack() as stack:
                for attention, path in block.attentions:
                    attend = partial(_Attend.apply, self, path)
                    stack.enter_context(attending(attention, cast(Attend, attend)))
                self._back(block)

    def _back(self, step: Callable[[States], States]) -> None:
        """Differentiate a step of the chain: the gradient of its result becomes that of its input."""
        with torch.enable_grad():
            states = tuple(state.detach().requires_grad_() for state in self._run.pop())
            result = step(states)
        self.gradient = torch.autograd.grad(result, states, self.gradient, materialize_grads=True)


class _Attend(torch.autograd.Function):
    """Attention whose backward pass also moves the rows of a way back through it.

    Torch runs the backward passes of the attentions in a block one after the other, the last one first.
    """

    @staticmethod
    def forward(ctx: Any, way: _WayBack, path: Path, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.way, ctx.path = way, path
        ctx.save_for_backward(q, k, v)
        return F.scaled_dot_product_attention(q, k, v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found: list[Gradients] = []

        def push(rows: Tensor) -> Tensor:
            found.append(backward(rows, *ctx.saved_tensors, *gradients))
            return rows + found[0].relevance

        ctx.way.rows = ctx.path(ctx.way.rows, push)
        return None, None, found[0].queries, found[0].keys, found[0].values


def _gradient(score: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    """Differentiate a score by the vectors that it is computed from: (N, D) -> (N, D)."""
    with torch.enable_grad():
        leaf = vectors.detach().requires_grad_()
        return torch.autograd.grad(score(leaf), leaf)[0]
