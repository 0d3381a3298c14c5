"""Attentive probes: learned queries weigh the units of a window, and a linear head classifies what they see.

As V-JEPA is probed (Bardes et al., arXiv 2404.08471, section 5), but small: a probe starts as a linear one on
the mean over units. W windows, S units in a window, D width of a unit's embedding, V width of its values, E
width of a window's vector, Q queries, K classes.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tubelet.models.families.unit_pooling import AttentivePool, AttentivePooling, attend
from tubelet.models.training.probes import window_errors, window_weights

STEPS = 150
"""The most steps of a training: which number is best, cross-validation tells."""
STRIDE = 15
"""Steps from one probe to the next that are compared."""
_BATCH = 32
_LARGEST_BATCH = 128  # of many windows
_EPOCHS = 10  # of STEPS steps, where batches are neither the smallest nor the largest
_RATE, _TIME_RATE = 3e-3, 0.03
_DECAY, _QUERY_DECAY = 0.1, 0.01
_DROPOUT = 0.3
_SEED = 20261130
_TINY = 1e-6  # smallest standard deviation; a feature that is always the same has none
_CHUNK = 1024  # windows that are classified together


@dataclass(frozen=True, slots=True)
class Units:
    """The units of windows: ``embeddings`` (N, S, D) of which the windows are the ``rows`` (W,).

    The first ``lengths`` (N,) units of a row count; the others may be anything finite.
    """

    embeddings: Tensor = field(repr=False)
    lengths: Tensor
    rows: Tensor

    def part(self, chosen: Tensor) -> "Units":
        """Return the windows that are ``chosen``: (W,) bool, or their numbers; no embedding is copied."""
        return Units(self.embeddings, self.lengths, self.rows[chosen])


def join_units(windows: list[Tensor]) -> Units:
    """Join windows (W, S, D) of clips, whose numbers of units S may differ."""
    most = max(each.shape[1] for each in windows)
    count = sum(len(each) for each in windows)
    embeddings = torch.zeros(count, most, windows[0].shape[2])
    lengths = torch.zeros(count, dtype=torch.int64)
    first = 0
    for each in windows:
        last = first + len(each)
        embeddings[first:last, : each.shape[1]] = each
        lengths[first:last] = each.shape[1]
        first = last
    return Units(embeddings, lengths, torch.arange(count))


class AttentiveProbe(nn.Module):
    """A pooling of units and a linear head on it."""

    def __init__(self, pooling: AttentivePooling, head: nn.Linear) -> None:
        super().__init__()
        self.pooling, self.head = pooling, head

    @torch.no_grad()
    def forward(self, units: Units) -> Tensor:
        """Classify windows: -> (W, K)."""
        embeddings, lengths = units.embeddings, units.lengths
        chunks = units.rows.split(_CHUNK)
        return torch.cat([self.head(self.pooling(embeddings[rows], lengths[rows])) for rows in chunks])


def train_attentive(
    units: Units, vectors: Tensor, labels: Tensor, start: nn.Linear, pool: AttentivePool
) -> Iterator[AttentiveProbe]:
    """Yield a probe after each ``STRIDE`` steps, the first one after as many, ``STEPS`` at most.

    It begins as the linear probe ``start`` on ``vectors`` (W, V), the means of the units' values. AdamW
    minimises the cross entropy, weighed as that of a linear probe is, over values of the scale of
    ``vectors``; random numbers decay, dropout and batches have a fixed seed.
    """
    pooling = AttentivePooling(pool, units.embeddings.shape[2])
    draw = torch.Generator().manual_seed(_SEED)
    mean, std = vectors.mean(dim=0), vectors.std(dim=0, correction=0)
    scale = torch.where(std > _TINY, std, torch.inf)  # a constant feature gets no weight
    first, *others = pooling.query.shape
    query = torch.randn(first, *others, generator=draw) / pooling.values_dim**0.5
    time = torch.randn(pooling.time.shape, generator=draw)
    query[0], time[0] = 0, 0  # the first query sees what the linear probe does
    weight = torch.zeros(len(start.bias), len(query), pooling.values_dim)
    weight[:, 0] = start.weight * std
    bias = start.bias + start.weight @ mean
    for each in (query, time, weight, bias):
        each.requires_grad_()
    optimiser = torch.optim.AdamW(
        [
            {"params": [query], "weight_decay": _QUERY_DECAY},
            {"params": [time], "lr": _TIME_RATE},
            {"params": [weight], "weight_decay": _DECAY},
            {"params": [bias]},
        ],
        lr=_RATE,
        betas=(0.9, 0.99),
        fused=True,
        weight_decay=0.0,
    )
    balance = window_weights(labels, len(bias)).float()
    batches = _batches(len(labels), draw)
    for step in range(1, STEPS + 1):
        chosen = next(batches)
        rows = units.rows[chosen]
        lengths = units.lengths[rows]
        values = (pooling.values(units.embeddings[rows], lengths) - mean) / scale
        weights = attend(values, query, time, lengths)
        seen = weights.transpose(1, 2) @ values
        kept = torch.rand(len(rows), 1, pooling.values_dim, generator=draw) >= _DROPOUT
        logits = torch.einsum("wqv,kqv->wk", seen * kept / (1 - _DROPOUT), weight) + bias
        loss = (balance[chosen] * window_errors(logits, labels[chosen])).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % STRIDE == 0:
            yield _unscaled(pooling, (query, time, weight, bias), mean, scale)


def _batches(count: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Yield the numbers of the windows of one batch after the other, in a new order in each epoch."""
    size = min(max(_BATCH, count * _EPOCHS // STEPS), _LARGEST_BATCH, count)
    while True:
        order = torch.randperm(count, generator=draw)
        yield from order[: count // size * size].split(size)


@torch.no_grad()
def _unscaled(
    pooling: AttentivePooling, parameters: tuple[Tensor, Tensor, Tensor, Tensor], mean: Tensor, scale: Tensor
) -> AttentiveProbe:
    """Return the probe that takes embeddings as they are: weights of units sum to 1, so that means cancel."""
    query, time, weight, bias = parameters
    own = copy.deepcopy(pooling)
    own.query.copy_(query / scale)
    own.time.copy_(time)
    weight = weight / scale
    head = nn.Linear(own.width, len(bias))
    head.weight.copy_(weight.flatten(1))
    head.bias.copy_(bias - torch.einsum("kqv,v->k", weight, mean))
    return AttentiveProbe(own, head).requires_grad_(False)
