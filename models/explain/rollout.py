"""Attention rollout (Abnar and Zuidema, arXiv 2005.00928), pushed back from the read-out row.

The row of the read-out goes through the layers from the last to the first: r <- (r + r A) / 2, A the weights,
heads averaged. That is the row of the paper's product of (I + A) / 2, without any product of matrices.
S units in a window, L tokens of a unit.
"""

from collections.abc import Generator

import torch
from torch import Tensor, cat

from tubelet.models.explain.explanation import Mass
from tubelet.models.explain.recording import Recorded, record
from tubelet.models.explain.transformer import Chain, Transformer
from tubelet.models.explain.weights import seen_by


def rollout(transformer: Transformer, window: Tensor) -> Generator[None, None, Mass]:
    """Explain a window by rollout: (S, t, H, W, C) uint8 -> Mass, whose sum is 1.

    Units are read through their class tokens alone. So a patch of a unit has the share of the unit in the
    temporal chain times its own in the unit.
    """
    pushed, vectors = [], []
    for batch in window.split(transformer.model.cpu_batch_units):
        rows, embeddings = yield from _push_back(transformer.spatial, batch)
        pushed.append(rows)
        vectors.append(embeddings)
    rows = cat(pushed)
    if transformer.temporal is None:
        return transformer.mass(rows / len(rows))
    units, _ = yield from _push_back(transformer.temporal, cat(vectors)[None])
    return transformer.mass(rows * units[0, 1:, None], float(units[0, 0]))


@torch.no_grad()
def _push_back(chain: Chain, batch: Tensor) -> Generator[None, None, tuple[Tensor, Tensor]]:
    """Run a chain, and push the rows of its read-outs back: -> rows (N, L) float64, vectors (N, D)."""
    recorded, vectors = yield from record(chain, batch)
    rows = chain.start.expand(len(vectors), -1)
    while recorded:
        yield
        rows = _halfway(rows, recorded.pop())
    return rows, vectors


def _halfway(rows: Tensor, layer: Recorded) -> Tensor:
    """Push rows through one attention and its residual connection: (N, L) -> (N, L)."""
    return layer.path(rows, lambda part: (part + seen_by(part, layer.queries, layer.keys)) / 2)
