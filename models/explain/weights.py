"""Products of rows and attention weights, a few heads at a time, so that few Q x K matrices exist at once.

M attentions side by side (units, frames or tracks), A heads, Q queries, K keys, d width of a head. Rows are
float64, since relevance adds small shares to 1; weights are float32.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from tubelet.models.families.layers import Attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""How queries see values through keys, as ``Attention.attend``."""
CHUNK_WEIGHTS = 4_000_000
"""Weights that are computed at a time: 16 MB in float32. One head of more tokens is computed by itself."""


@contextmanager
def attending(attention: Attention, attend: Attend) -> Iterator[None]:
    """Compute ``attention`` with ``attend`` within the context; one thread at a time."""
    attention.attend = attend
    try:
        yield
    finally:
        del attention.attend


def seen_by(rows: Tensor, queries: Tensor, keys: Tensor, head: int | None = None) -> Tensor:
    """Multiply rows by softmax weights, of one head or the mean of all: (M, Q), 2 (M, A, ., d) -> (M, K)."""
    if head is not None:
        queries, keys = queries[:, head : head + 1], keys[:, head : head + 1]
    used = (rows != 0).any(dim=0)
    queries, rows = queries[:, :, used], rows[:, used]
    q, k, by_head = _by_head(queries), _by_head(keys), _rows_by_head(rows, queries)
    seen = torch.empty(len(q), k.shape[1], dtype=rows.dtype, device=rows.device)
    for part in _chunks(q, k):
        seen[part] = torch.bmm(by_head[part], _softmax(q[part], k[part]))[:, 0].to(rows.dtype)
    return _mean_over_heads(seen, queries)


class Gradients(NamedTuple):
    """What an attention passes back: gradients of its inputs (M, A, ., d), and the rows' relevance (M, K)."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    relevance: Tensor


def backward(rows: Tensor, queries: Tensor, keys: Tensor, values: Tensor, gradient: Tensor) -> Gradients:
    """Differentiate an attention, and multiply rows by its relevance: (M, Q), 4 x (M, A, ., d) -> Gradients.

    With A the weights and dA their gradient, relevance is the mean over heads of max(0, dA A): Chefer et al.,
    arXiv 2103.15679, equations 5 and 6.
    """
    q, k, v, g = map(_by_head, (queries, keys, values, gradient))
    by_head, scale = _rows_by_head(rows, queries), q.shape[-1] ** -0.5
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    relevance = torch.empty(len(q), k.shape[1], dtype=rows.dtype, device=rows.device)
    for part in _chunks(q, k):
        weights = _softmax(q[part], k[part])
        dv[part] = torch.bmm(weights.mT, g[part])
        product = torch.bmm(g[part], v[part].mT).mul_(weights)
        relevance[part] = torch.bmm(by_head[part], product.clamp_min(0))[:, 0].to(rows.dtype)
        scores = product.sub_(weights.mul_(product.sum(dim=-1, keepdim=True))).mul_(scale)
        dq[part] = torch.bmm(scores, k[part])
        dk[part] = torch.bmm(scores.mT, q[part])
    dq, dk, dv = dq.view_as(queries), dk.view_as(keys), dv.view_as(values)
    return Gradients(dq, dk, dv, _mean_over_heads(relevance, queries))


def _softmax(queries: Tensor, keys: Tensor) -> Tensor:
    """Compute attention weights: (C, Q, d), (C, K, d) -> (C, Q, K)."""
    return torch.bmm(queries * queries.shape[-1] ** -0.5, keys.mT).softmax(dim=-1)


def _by_head(tensor: Tensor) -> Tensor:
    """Flatten attentions and heads: (M, A, P, d) -> (M A, P, d)."""
    return tensor.flatten(0, 1).contiguous()


def _rows_by_head(rows: Tensor, queries: Tensor) -> Tensor:
    """Repeat rows for each head: (M, Q), (M, A, Q, d) -> (M A, 1, Q) in the dtype of the queries."""
    return rows.to(queries.dtype).repeat_interleave(queries.shape[1], dim=0)[:, None]


def _mean_over_heads(rows: Tensor, queries: Tensor) -> Tensor:
    """Average rows over heads: (M A, K), (M, A, Q, d) -> (M, K)."""
    return rows.unflatten(0, queries.shape[:2]).mean(dim=1)


def _chunks(queries: Tensor, keys: Tensor) -> Iterator[slice]:
    """Cut (M A) into parts of at most ``CHUNK_WEIGHTS`` weights, at least one each."""
    size = max(1, CHUNK_WEIGHTS // max(1, queries.shape[1] * keys.shape[1]))
    return (slice(start, start + size) for start in range(0, len(queries), size))
