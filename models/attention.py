"""Attention's product in bfloat16 on a CPU, by the arrangement that is fastest there.

N sequences, A heads, P tokens, Q of them asking, d a head's width; G = N A.
"""

import math

import torch
from torch import Tensor

_SCORES_IN_CACHE = 2_500_000  # bfloat16 numbers; more than twice as many, and a product waits for memory
_MIN_ROWS = 64  # fewer queries at a time leave a matrix product too thin

LN_2 = math.log(2)
_TINY, _HUGE = 1e-20, 1e20  # sums of powers that are far from where bfloat16 ends


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Powers of two of q k', divided by their sum, times v: (N, A, Q, d), (N, A, P, d) -> (N, Q, A d).

    It is softmax(q k' / sqrt(d)) v where q was scaled by log2(e) / sqrt(d). Blocks of scores stay in the
    processor's cache: torch's fused kernel reaches a fifth of the processor's rate in bfloat16, its batched
    products most of it. They want whole matrices: q, k and v are contiguous.
    """
    n, heads, asking, width = q.shape
    q, keys, v = q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1)
    rows = min(asking, max(_MIN_ROWS, _SCORES_IN_CACHE // v.shape[1]))
    at_once = max(1, _SCORES_IN_CACHE // (rows * v.shape[1]))
    if rows >= asking and at_once >= len(q):
        products, totals = _weighted(q, keys, v)
    else:
        products, totals = torch.empty_like(q), q.new_empty(*q.shape[:2], 1)
        for head in range(0, len(q), at_once):
            group = slice(head, head + at_once)
            for row in range(0, asking, rows):
                block = group, slice(row, row + rows)
                products[block], totals[block] = _weighted(q[block], keys[group], v[group])
    # Divided into the order that the next layer reads, in one walk.
    result = q.new_empty(n, asking, heads, width)
    torch.div(products.unflatten(0, (n, heads)), totals.unflatten(0, (n, heads)), out=result.transpose(1, 2))
    return result.flatten(2)


def _weighted(q: Tensor, keys: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Sums and the sums of their weights: (G, Q, d), (G, d, P), (G, P, d) -> (G, Q, d), (G, Q, 1)."""
    # Powers as they are, divided by their sum at the end, save two of softmax's three walks over the scores.
    weights = torch.bmm(q, keys).exp2_()
    totals = weights.sum(dim=-1, keepdim=True)
    least, most = totals.aminmax()
    if least.item() > _TINY and most.item() < _HUGE:
        return torch.bmm(weights, v), totals
    weights = torch.softmax(torch.bmm(q, keys) * LN_2, dim=-1)
    return torch.bmm(weights, v), torch.ones_like(totals)
