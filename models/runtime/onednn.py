"""Layers for inference on the CPU: weights laid out once as oneDNN wants them, work folded into them.

They are plain functions of tensors: a call of a module takes Python a microsecond or more, a block has ten of
them, and a unit that is computed alone a dozen blocks.

N sequences, A heads, P tokens, D embedding width, d a head's width, t frames in a unit, H W C pixels.
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
_MIDDLE = 128  # of a byte; numbers around zero are better kept by bfloat16


class PackedLinear:
    """A linear layer, and an activation behind it, or ``plus`` added: (..., in) -> (..., out)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, post: str = "none", algorithm: str = "") -> None:
        self.packed = _ops._reorder_linear_weight(weight.detach().contiguous())
        self.bias = None if bias is None else bias.detach()
        self.post, self.algorithm = post, algorithm

    def __call__(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        if plus is None:
            return _ops._linear_pointwise.default(x, self.packed, self.bias, self.post, [], self.algorithm)
        assert self.post == "none"
        return _ops._linear_pointwise.binary(x, plus, self.packed, self.bias, "add")


Linear = type[PackedLinear] | type[Int8Linear]


class PackedMlp:
    """(N, P, D) -> (N, P, D); activation and ``plus`` are computed while a product is written."""

    def __init__(self, mlp: Mlp, linear: Linear) -> None:
        algorithm = "tanh" if mlp.act == "gelu_tanh" else "none"
        self.fc1 = linear(mlp.fc1.weight, mlp.fc1.bias, "gelu", algorithm)
        self.fc2 = linear(mlp.fc2.weight, mlp.fc2.bias)

    def __call__(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        return self.fc2(self.fc1(x), plus)


class PackedAttention:
    """(N, P, D) -> (N, P, D), or (N, first, D); ``after`` is a linear layer that follows at once.

    ``plus`` is added to what comes out.
    """

    def __init__(self, attention: Attention, linear: Linear, after: nn.Linear | None = None) -> None:
        self.num_heads = attention.num_heads
        self.qkv = linear(attention.qkv.weight, attention.qkv.bias)
        weight, bias = attention.proj.weight, attention.proj.bias
        if after is not None:
            weight, bias = _in_series(attention.proj, after)
        self.proj = linear(weight, bias)

    def __call__(self, x: Tensor, first: int | None = None, plus: Tensor | None = None) -> Tensor:
        n, p, width = x.shape
        q, k, v = self.qkv(x).view(n, p, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q if first is None else q[:, :, :first], k, v)
        return self.proj(seen.transpose(1, 2).flatten(2), plus)


class PackedBlock(nn.Module):
    """As ``EncoderBlock``; what a layer adds to the tokens is added while it is written."""

    def __init__(self, block: EncoderBlock, linear: Linear) -> None:
        super().__init__()
        self.norm1, self.norm2 = _arguments(block.norm1), _arguments(block.norm2)
        self.attn = PackedAttention(block.attn, linear)
        self.mlp = PackedMlp(block.mlp, linear)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        wanted = x if first is None else x[:, :first].contiguous()
        x = self.attn(torch.layer_norm(x, *self.norm1), first, wanted)
        return self.mlp(torch.layer_norm(x, *self.norm2), x)


class PackedEmbed:
    """Patches or tubelets of pixels as they are: (N, [t,] H, W, C) uint8 -> (N, P, D).

    Taken in the order in which they lie, and made normal by the weights, which saves four walks over them.
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
        # Less 128, as bytes with a sign.
        return self.proj(pixels.bitwise_xor(_MIDDLE).view(torch.int8).to(self.dtype))


@torch.no_grad()
def pack(model: VideoModel, linear: Linear = PackedLinear) -> None:
    """Replace the layers of a model's transformer, in place, where torch has oneDNN."""
    if torch.backends.mkldnn.is_available():
        _pack(model, model, linear)


def _pack(part: nn.Module, model: VideoModel, linear: Linear) -> None:
    if isinstance(part, DividedBlock):
        _put(part, "temporal_attn", PackedAttention(part.temporal_attn, linear, part.temporal_fc))
        part.add_module("temporal_fc", nn.Identity())
    for name, child in list(part.named_children()):
        match child:
            case EncoderBlock():
                part.add_module(name, PackedBlock(child, linear))
            case Mlp():
                _put(part, name, PackedMlp(child, linear))
            case Attention():
                _put(part, name, PackedAttention(child, linear))
            case PatchEmbed() | TubeletEmbed():
                # Nothing else in the model may ask for normal pixels.
                assert model.normalise is not _as_they_are
                _put(part, name, PackedEmbed(child, model.preprocessing))
                model.normalise = _as_they_are
            case _:
                _pack(child, model, linear)


def _put(part: nn.Module, name: str, layer: Callable[..., Tensor]) -> None:
    """In the place of a module, which torch lets nothing else take."""
    delattr(part, name)
    setattr(part, name, layer)


def _arguments(norm: nn.LayerNorm) -> tuple[Any, ...]:
    """Those of ``torch.layer_norm`` behind its input."""
    return norm.normalized_shape, norm.weight, norm.bias, norm.eps


def _as_they_are(units: Tensor) -> Tensor:
    return units


def _in_series(first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor]:
    """The weight and bias of two linear layers with nothing between them, multiplied in float32."""
    dtype, weight = second.weight.dtype, second.weight.float()
    bias = weight @ first.bias.float() + second.bias.float()
    return (weight @ first.weight.float()).to(dtype), bias.to(dtype)
