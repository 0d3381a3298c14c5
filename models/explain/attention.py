"""The softmax weights of one layer: of one head, or the mean over heads, for one query token.

S units in a window, P patches of a unit, L its tokens.
"""

from collections.abc import Generator

import torch
from torch import Tensor, cat

from tubelet.models.explain.explanation import Mass, Question
from tubelet.models.explain.recording import Recorded, record
from tubelet.models.explain.transformer import Transformer, one_hot
from tubelet.models.explain.weights import seen_by


@torch.no_grad()
def attention(transformer: Transformer, window: Tensor, question: Question) -> Generator[None, None, Mass]:
    """Explain a window by the weights of one layer: (S, t, H, W, C) uint8 -> Mass, whose sum is 1.

    Without a query, the read-out of each unit attends, and the mean over units is taken. A temporal layer
    attends to whole units, whose weights are spread evenly over their patches.
    """
    spatial, temporal = transformer.spatial, transformer.temporal
    last = len(spatial.attentions) - 1
    layer = last if question.layer is None else question.layer
    seen, vectors = [], []
    queries = _queries(transformer, len(window), question.query)
    size = transformer.model.cpu_batch_units
    for batch, rows in zip(window.split(size), queries.split(size), strict=True):
        recorded, embeddings = yield from record(spatial, batch)
        vectors.append(embeddings)
        if layer <= last:
            seen.append(_through(rows, recorded[layer], question.head))
    if layer <= last:
        return transformer.mass(cat(seen))
    assert temporal is not None
    recorded, _ = yield from record(temporal, cat(vectors)[None])
    query = temporal.start if question.query is None else one_hot(temporal.start, 1 + question.query[0])
    units = _through(query[None], recorded[layer - last - 1], question.head)[0]
    even = torch.full_like(queries, 1 / (queries.shape[1] - spatial.class_tokens))
    even[:, : spatial.class_tokens] = 0
    return transformer.mass(even * units[1:, None], float(units[0]))


def _queries(transformer: Transformer, units: int, query: tuple[int, int, int] | None) -> Tensor:
    """Return the rows of the query: that of one patch, or the read-outs' of all units: -> (S, L) float64."""
    start = transformer.spatial.start
    if query is None:
        return start.expand(units, -1) / units
    steps, rows, columns = transformer.grid
    step, row, column = query
    queries = start.new_zeros(units, len(start))
    position = (step % steps * rows + row) * columns + column
    queries[step // steps, transformer.spatial.class_tokens + position] = 1
    return queries


def _through(rows: Tensor, layer: Recorded, head: int | None) -> Tensor:
    """Multiply rows by the weights of one attention: (N, L) -> (N, L)."""
    return layer.path(rows, lambda part: seen_by(part, layer.queries, layer.keys, head))
