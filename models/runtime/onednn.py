"""Layers for inference on the CPU: weights are packed once for oneDNN, and neighbouring operations fused.

Most are plain callables instead of modules: calling a module takes Python a microsecond or more, a block has
ten of them, and a model a dozen blocks.

N sequences, Q queries, A heads, P tokens, D embedding width, d a head's width, t frames in a unit,
H W C pixels.
oneDNN: https://uxlfoundation.github.io/oneDNN/dev_guide_matmul.html
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from tubelet.models.families.divided import DividedBlock
from tubelet.models.families.layers import Attention, EncoderBlock, Mlp, PatchEmbed, TubeletEmbed
from tubelet.models.runtime.int8 import Int8Linear
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import VideoModel

_ops: Any = torch.ops.mkldnn
_MIDDLE = 128  # of a byte's range; bfloat16 represents numbers around zero better


class PackedLinear:
    """A linear layer that applies an activation, or adds ``residual``, in one pass: (..., in) -> (..., out).

    ``activation`` and ``approximate`` are oneDNN's names: "gelu" with "none" or "tanh", or "none".
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, activation: str = "none", approximate: str = ""
    ) -> None:
        self.packed = _ops._reorder_linear_weight(weight.detach().contiguous())
        self.bias = None if bias is None else bias.detach()
        self.activation, self.approximate = activation, approximate

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if residual is None:
            return _ops._linear_pointwise.default(
                x, self.packed, self.bias, self.activation, [], self.approximate
            )
        assert self.activation == "none"
        return _ops._linear_pointwise.binary(x, residual, self.packed, self.bias, "add")


Linear = type[PackedLinear] | type[Int8Linear]


class PackedMlp:
    """``Mlp`` with fused activation and residual: (N, P, D) -> (N, P, D)."""

    def __init__(self, mlp: Mlp, linear: Linear) -> None:
        approximate = "tanh" if mlp.act == "gelu_tanh" else "none"
        self.fc1 = linear(mlp.fc1.weight, mlp.fc1.bias, "gelu", approximate)
        self.fc2 = linear(mlp.fc2.weight, mlp.fc2.bias)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self.fc2(self.fc1(x), residual)


class PackedAttention:
    """``Attention`` that adds ``residual``: (N, P, D) -> (N, P, D), or (N, Q, D) with ``num_queries`` = Q.

    ``after`` is a linear layer that follows directly; it is folded into the projection.
    """

    def __init__(self, attention: Attention, linear: Linear, after: nn.Linear | None = None) -> None:
        self.num_heads = attention.num_heads
        self.qkv = linear(attention.qkv.weight, attention.qkv.bias)
        weight, bias = attention.proj.weight, attention.proj.bias
        if after is not None:
            weight, bias = _fold_linears(attention.proj, after)
        self.proj = linear(weight, bias)

    def __call__(self, x: Tensor, num_queries: int | None = None, residual: Tensor | None = None) -> Tensor:
        n, p, width = x.shape
        q, k, v = self.qkv(x).view(n, p, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q if num_queries is None else q[:, :, :num_queries], k, v)
        return self.proj(seen.transpose(1, 2).flatten(2), residual)


class PackedBlock(nn.Module):
    """``EncoderBlock`` with packed layers and fused residuals: (N, P, D) -> (N, P, D), or (N, Q, D)."""

    def __init__(self, block: EncoderBlock, linear: Linear) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm_arguments(block.norm1), _norm_arguments(block.norm2)
        self.attn = PackedAttention(block.attn, linear)
        self.mlp = PackedMlp(block.mlp, linear)

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:
        wanted = x if num_queries is None else x[:, :num_queries].contiguous()
        x = self.attn(torch.layer_norm(x, *self.norm1), num_queries, wanted)
        return self.mlp(torch.layer_norm(x, *self.norm2), x)


class PackedEmbed:
    """``PatchEmbed`` or ``TubeletEmbed`` of raw pixels: (N, [t,] H, W, C) uint8 -> (N, P, D).

    The weights include the normalisation and are permuted to the order of pixels in memory, which saves four
    passes over the pixels.
    """

    def __init__(self, embed: PatchEmbed | TubeletEmbed, preprocessing: Preprocessing) -> None:
        kernel, bias = embed.proj.weight, embed.proj.bias
        assert bias is not None
        self.tubelet_size = (1, 1, *kernel.shape[2:])[-3:]
        weight = kernel.detach().float().movedim(1, -1)
        mean, std = (
            torch.tensor(each).repeat(weight.shape[-1] // len(each))
            for each in (preprocessing.mean, preprocessing.std)
        )
        shift = (weight * ((_MIDDLE / 255 - mean) / std)).flatten(1).sum(1)
        weight = (weight / (255 * std)).flatten(1)
        self.proj = PackedLinear(weight.to(kernel.dtype), (bias.detach().float() + shift).to(bias.dtype))
        self.dtype = kernel.dtype

    def __call__(self, units: Tensor) -> Tensor:
        u, p, q = self.tubelet_size
        units = units if units.ndim == 5 else units[:, None]
        pixels = rearrange(units, "n (t u) (h p) (w q) c -> n (t h w) (u p q c)", u=u, p=p, q=q)
        # Flipping the highest bit subtracts 128: uint8 becomes int8.
        return self.proj(pixels.bitwise_xor(_MIDDLE).view(torch.int8).to(self.dtype))


_PACKED = (EncoderBlock, Mlp, Attention, PatchEmbed, TubeletEmbed)


@torch.no_grad()
def pack(model: VideoModel, linear: Linear = PackedLinear) -> None:
    """Replace a model's transformer layers by packed ones, in place, if torch has oneDNN.

    ``linear`` is the class of the linear layers in blocks.
    """
    if torch.backends.mkldnn.is_available():
        _pack(model, model, linear)


def _pack(part: nn.Module, model: VideoModel, linear: Linear) -> None:
    """Replace the layers below ``part``, a module of ``model``."""
    if isinstance(part, DividedBlock):
        _replace_module(part, "temporal_attn", PackedAttention(part.temporal_attn, linear, part.temporal_fc))
        part.add_module("temporal_fc", nn.Identity())
    for name, child in list(part.named_children()):
        if isinstance(child, _PACKED) and type(child) not in _PACKED:
            _pack(child, model, linear)  # a subclass may compute something else
            continue
        match child:
            case EncoderBlock():
                part.add_module(name, PackedBlock(child, linear))
            case Mlp():
                _replace_module(part, name, PackedMlp(child, linear))
            case Attention():
                _replace_module(part, name, PackedAttention(child, linear))
            case PatchEmbed() | TubeletEmbed():
                # Nothing else in the model may normalise pixels.
                assert model.normalise is not _identity
                _replace_module(part, name, PackedEmbed(child, model.preprocessing))
                model.normalise = _identity
            case VideoModel():  # it normalises for itself
                _pack(child, child, linear)
            case _:
                _pack(child, model, linear)


def _replace_module(part: nn.Module, name: str, layer: Callable[..., Tensor]) -> None:
    """Replace the module ``name`` of ``part`` by a plain callable, which torch's setattr alone refuses."""
    delattr(part, name)
    setattr(part, name, layer)


def _norm_arguments(norm: nn.LayerNorm) -> tuple[Any, ...]:
    """Return the arguments of ``torch.layer_norm`` after its input."""
    return norm.normalized_shape, norm.weight, norm.bias, norm.eps


def _identity(units: Tensor) -> Tensor:
    """Return units as they are, in the place of ``VideoModel.normalise``."""
    return units


def _fold_linears(first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of one layer that computes ``second(first(x))``, multiplied in float32."""
    dtype, weight = second.weight.dtype, second.weight.float()
    bias = weight @ first.bias.float() + second.bias.float()
    return (weight @ first.weight.float()).to(dtype), bias.to(dtype)
