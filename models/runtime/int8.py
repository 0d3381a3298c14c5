"""Linear layers that multiply 8-bit integers, on the CPU: faster than bfloat16, less exact.

N units, P tokens, D embedding width. Weights have one scale an output. Activations have one scale a token,
computed at run time ("dynamic"), so that a token's result does not depend on other tokens:
Dettmers et al., LLM.int8(), arXiv 2208.07339, section 2.1 (vector-wise quantisation).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ops: Any = torch.ops.onednn
_WEIGHT_LEVELS = 127  # of int8 weights, on each side of zero
_LEVELS = 126  # of activations, on each side of zero; rounding the scale to bfloat16 may add one
_ZERO = 128  # the level of zero: activations are unsigned, the only kind that oneDNN multiplies fast
_TINY = 1e-6  # smallest absolute maximum, so that a token of zeros has a scale too


class Int8Linear:
    """An int8 linear layer with the interface of ``PackedLinear``: (..., in) -> (..., out)."""

    def __init__(
        self, weight: Tensor, bias: Tensor, activation: str = "none", approximate: str = "none"
    ) -> None:
        weight = weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp(min=_TINY) / _WEIGHT_LEVELS
        self.packed = _ops.qlinear_prepack((weight / scales[:, None]).round().to(torch.int8), None)
        self.scales, self.zeros = scales, torch.zeros(len(scales), dtype=torch.int32)
        self.bias = bias.detach()
        self.activation, self.approximate = activation, approximate

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Quantise ``x``, multiply, scale back; then apply the activation, or add ``residual``."""
        per_level = _LEVELS / x.abs().amax(dim=-1, keepdim=True).clamp_(min=_TINY)
        levels = (x * per_level).round_().add_(_ZERO).to(torch.uint8)
        y = torch.addcmul(self.bias, self.product(levels, x.dtype), per_level.reciprocal_())
        if self.activation == "gelu":
            assert residual is None
            return F.gelu(y, approximate=self.approximate)
        return y if residual is None else y.add_(residual)

    def product(self, levels: Tensor, dtype: torch.dtype) -> Tensor:
        """Multiply levels by the weights: (..., in) uint8 around 128 -> (..., out) in ``dtype``.

        The scale of the weights is applied, that of the levels is not.
        """
        return _ops.qlinear_pointwise(
            levels, 1.0, _ZERO, self.packed, self.scales, self.zeros, None, 1.0, 0, dtype, "none", [], ""
        )
