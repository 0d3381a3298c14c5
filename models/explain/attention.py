"""The softmax weights of layers: of one head, or the mean over heads, for one query token.

S units in a window, P patches of a unit, L its tokens.
"""

from collections.abc import Generator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, cat

from tubelet.models.explain.explanation import Mass, Question
from tubelet.models.explain.recording import Recorded, record
from tubelet.models.explain.transformer import Transformer, one_hot
from tubelet.models.explain.weights import seen_by


class _Heads(NamedTuple):
    """What is taken of a layer: one head, or the mean over heads (None)."""

    layer: int
    head: int | None


def attention(transformer: Transformer, window: Tensor, question: Question) -> Generator[None, None, Mass]:
    """Explain a window by the weights of one layer: (S, t, H, W, C) uint8 -> Mass, whose sum is 1.

    Without a query, the read-out of each unit attends, and the mean over units is taken. A temporal layer
    attends to whole units, whose weights are spread evenly over their patches.
    """
    layer = len(transformer.spatial.attentions) - 1 if question.layer is None else question.layer
    wanted = [_Heads(layer, question.head)]
    (mass,) = yield from _masses(transformer, window, wanted, question.query)
    return mass


def attention_of_heads(transformer: Transformer, window: Tensor) -> Generator[None, None, list[Mass]]:
    """Explain a window by each head of each layer, in one pass: -> a Mass for each, layer by layer.

    Each is what ``attention`` finds without a query.
    """
    layers, heads = len(transformer.attentions), transformer.heads
    wanted = [_Heads(layer, head) for layer, head in product(range(layers), range(heads))]
    return (yield from _masses(transformer, window, wanted))


@torch.no_grad()
def _masses(
    transformer: Transformer,
    window: Tensor,
    wanted: Sequence[_Heads],
    query: tuple[int, int, int] | None = None,
) -> Generator[None, None, list[Mass]]:
    """Run the layers once, and return the Mass of each of ``wanted``, which come layer by layer."""
    spatial, temporal = transformer.spatial, transformer.temporal
    inside = len(spatial.attentions)  # the layers that attend to patches
    of_patches = [each for each in wanted if each.layer < inside]
    of_units = [each for each in wanted if each.layer >= inside]
    seen: list[list[Tensor]] = [[] for _ in of_patches]
    vectors = []
    queries = _queries(transformer, len(window), query)
    size = transformer.model.cpu_batch_units
    for batch, rows in zip(window.split(size), queries.split(size), strict=True):
        recorded, embeddings = yield from record(spatial, batch)
        vectors.append(embeddings)
        for each, parts in zip(of_patches, seen, strict=True):
            parts.append(_through(rows, recorded[each.layer], each.head))
    masses = [transformer.mass(cat(parts)) for parts in seen]
    if not of_units:
        return masses
    assert temporal is not None
    recorded, _ = yield from record(temporal, cat(vectors)[None])
    row = temporal.start if query is None else one_hot(temporal.start, 1 + query[0])
    even = torch.full_like(queries, 1 / (queries.shape[1] - spatial.class_tokens))
    even[:, : spatial.class_tokens] = 0
    for each in of_units:
        units = _through(row[None], recorded[each.layer - inside], each.head)[0]
        masses.append(transformer.mass(even * units[1:, None], float(units[0])))
    return masses


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
