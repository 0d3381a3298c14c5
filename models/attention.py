"""Attention's product, by the arrangement that is fastest where it runs.

N sequences, A heads, P tokens, d a head's width; G = N A.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_SCORES_IN_CACHE = 2_500_000  # bfloat16 numbers; more than twice as many, and a product waits for memory
_MIN_ROWS = 64  # fewer queries at a time leave a matrix product too thin

_LOG2_E, _LN_2 = math.log2(math.e), math.log(2)
_TINY, _HUGE = 1e-20, 1e20  # sums of powers that are far from where bfloat16 ends


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v for every head: three times (N, A, P, d) -> (N, A, P, d)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        n, a = q.shape[:2]
        return _in_blocks(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).unflatten(0, (n, a))
    return F.scaled_dot_product_attention(q, k, v)


def _in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The plain formula on blocks whose scores stay in the processor's cache: (G, P, d) -> (G, P, d).

    torch's fused kernel reaches a fifth of the processor's rate in bfloat16, its batched products most of it.
    """
    heads, length, width = q.shape
    q, keys = q * (width**-0.5 * _LOG2_E), k.transpose(1, 2)
    rows = min(length, max(_MIN_ROWS, _SCORES_IN_CACHE // length))
    at_once = max(1, _SCORES_IN_CACHE // (rows * length))
    result = torch.empty_like(q)
    for head in range(0, heads, at_once):
        group = slice(head, head + at_once)
        for row in range(0, length, rows):
            block = slice(row, row + rows)
            result[group, block] = _weighted(torch.bmm(q[group, block], keys[group]), v[group])
    return result


def _weighted(scores: Tensor, v: Tensor) -> Tensor:
    """softmax of scores in powers of two, times v: (G, rows, P), (G, P, d) -> (G, rows, d)."""
    # Powers as they are, divided by their sum at the end, save two of softmax's three walks over the scores.
    weights = scores.exp2()
    total = weights.sum(dim=-1, keepdim=True, dtype=torch.float32)
    if total.min() > _TINY and total.max() < _HUGE:
        return torch.bmm(weights, v) / total
    return torch.bmm(torch.softmax(scores * _LN_2, dim=-1), v)
