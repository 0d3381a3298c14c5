"""Linear layers whose products are of 8-bit integers, on the CPU: faster than bfloat16, less exact.

N units, P tokens, D embedding width. Weights have a scale an output, activations one a token, chosen as they
come ("dynamic"), so that a token's answer depends on no other: Dettmers et al., LLM.int8(), arXiv 2208.07339,
section 2.1 (vector-wise quantisation).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ops: Any = torch.ops.onednn
_WEIGHT_LEVELS = 127
_LEVELS = 126  # of activations on each side of zero; the scale's rounding to bfloat16 may add one
_ZERO = 128  # oneDNN is fast for unsigned activations alone
_TINY = 1e-6  # tokens of zeros have a scale too


class Int8Linear:
    """A linear layer as ``PackedLinear``, activation and ``plus`` included: (..., in) -> (..., out)."""

    def __init__(self, weight: Tensor, bias: Tensor, post: str = "none", algorithm: str = "none") -> None:
        weight = weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp(min=_TINY) / _WEIGHT_LEVELS
        self.packed = _ops.qlinear_prepack((weight / scales[:, None]).round().to(torch.int8), None)
        self.scales, self.zeros = scales, torch.zeros(len(scales), dtype=torch.int32)
        self.bias = bias.detach()
        self.post, self.algorithm = post, algorithm

    def __call__(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        per_level = _LEVELS / x.abs().amax(dim=-1, keepdim=True).clamp_(min=_TINY)
        levels = (x * per_level).round_().add_(_ZERO).to(torch.uint8)
        y = torch.addcmul(self.bias, self.product(levels, x.dtype), per_level.reciprocal_())
        if self.post == "gelu":
            assert plus is None
            return F.gelu(y, approximate=self.algorithm)
        return y if plus is None else y.add_(plus)

    def product(self, levels: Tensor, dtype: torch.dtype) -> Tensor:
        """(..., in) uint8 around 128 -> (..., out) in ``dtype``, in the scale of the weights."""
        return _ops.qlinear_pointwise(
            levels, 1.0, _ZERO, self.packed, self.scales, self.zeros, None, 1.0, 0, dtype, "none", [], ""
        )
