"""Layers for inference on the CPU: weights laid out once as oneDNN wants them, work folded into them.

N sequences, A heads, P tokens, D embedding width, d a head's width.
oneDNN: https://uxlfoundation.github.io/oneDNN/dev_guide_matmul.html
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.attention import LN_2, attend
from models.divided import DividedBlock
from models.int8 import Int8Linear
from models.layers import Attention, Mlp, PatchEmbed, TubeletEmbed

_ops: Any = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """A linear layer, and an activation behind it: (..., in) -> (..., out). It does not train."""

    def __init__(self, weight: Tensor, bias: Tensor | None, post: str = "none", algorithm: str = "") -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        # Not buffers: their layout is this processor's, nothing to save or to move.
        self.packed = _ops._reorder_linear_weight(weight.detach().contiguous())
        self.bias = None if bias is None else bias.detach()
        self.post, self.algorithm = post, algorithm

    def forward(self, x: Tensor) -> Tensor:
        return _ops._linear_pointwise(x, self.packed, self.bias, self.post, [], self.algorithm)


Linear = type[PackedLinear] | type[Int8Linear]


class PackedMlp(nn.Module):
    """(N, P, D) -> (N, P, D), the activation computed while the hidden layer is written."""

    def __init__(self, mlp: Mlp, linear: Linear) -> None:
        super().__init__()
        algorithm = "tanh" if mlp.act == "gelu_tanh" else "none"
        self.fc1 = linear(mlp.fc1.weight, mlp.fc1.bias, "gelu", algorithm)
        self.fc2 = linear(mlp.fc2.weight, mlp.fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


class PackedAttention(nn.Module):
    """(N, P, D) -> (N, P, D), or (N, first, D); ``after`` is a linear layer that follows at once."""

    def __init__(self, attention: Attention, linear: Linear, after: nn.Linear | None = None) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        width = attention.proj.in_features
        dtype = attention.qkv.weight.dtype
        scale = torch.ones(3 * width)
        scale[:width] = (width // self.num_heads) ** -0.5 / LN_2  # queries for powers of two
        weight, bias = scale[:, None] * attention.qkv.weight, scale * attention.qkv.bias
        self.qkv = linear(weight.to(dtype), bias.to(dtype))
        weight, bias = attention.proj.weight, attention.proj.bias
        if after is not None:
            weight, bias = _in_series(attention.proj, after)
        self.proj = linear(weight.to(dtype), bias.to(dtype))

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        heads = rearrange(self.qkv(x), "n p (three a d) -> three n a p d", three=3, a=self.num_heads)
        if x.dtype != torch.bfloat16:
            q, k, v = heads
            seen = F.scaled_dot_product_attention(q[:, :, :first], k, v, scale=LN_2)
            return self.proj(rearrange(seen, "n a p d -> n p (a d)"))
        q, k, v = heads.contiguous()
        return self.proj(attend(q[:, :, :first].contiguous(), k, v))


class PackedEmbed(nn.Module):
    """Patches or tubelets, pixels taken in the order in which they lie: (N, [t,] H, W, C) -> (N, P, D)."""

    def __init__(self, embed: PatchEmbed | TubeletEmbed) -> None:
        super().__init__()
        kernel = embed.proj.weight
        self.tubelet_size = (1, 1, *kernel.shape[2:])[-3:]
        self.proj = PackedLinear(kernel.movedim(1, -1).flatten(1), embed.proj.bias)

    def forward(self, units: Tensor) -> Tensor:
        u, p, q = self.tubelet_size
        units = units if units.ndim == 5 else units[:, None]
        return self.proj(rearrange(units, "n (t u) (h p) (w q) c -> n (t h w) (u p q c)", u=u, p=p, q=q))


@torch.no_grad()
def pack(model: nn.Module, linear: Linear = PackedLinear) -> None:
    """Replace the layers of a model's transformer blocks, in place, where torch has oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return
    for part in list(model.modules()):
        if isinstance(part, DividedBlock):
            attention = PackedAttention(part.temporal_attn, linear, part.temporal_fc)
            part.add_module("temporal_attn", attention)
            part.add_module("temporal_fc", nn.Identity())
        for name, child in list(part.named_children()):
            match child:
                case Mlp():
                    part.add_module(name, PackedMlp(child, linear))
                case Attention():
                    part.add_module(name, PackedAttention(child, linear))
                case PatchEmbed() | TubeletEmbed():
                    part.add_module(name, PackedEmbed(child))


def _in_series(first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor]:
    """The weight and bias, float32, of two linear layers with nothing between them."""
    weight = second.weight.float()
    return weight @ first.weight.float(), weight @ first.bias.float() + second.bias.float()
