"""The layers that every family is built of, with timm's parameter names.

N units in a batch, t frames in a unit, H W C pixels, P tokens, D embedding width, A heads.
Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929 (pre-norm encoder);
Arnab et al., "ViViT", arXiv 2103.15691 (tubelets).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, cat, empty, nn

Activation = Literal["gelu", "gelu_tanh"]
"""``gelu_tanh`` is the tanh approximation of Hendrycks and Gimpel, arXiv 1606.08415, section 2."""

NORM_EPS = 1e-6
"""Epsilon of layer norms, timm's default for ViT."""
MAX_DEPTH = 1000
"""Most blocks of an encoder. The deepest in the literature has about fifty."""
_ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh")}


PatchSize = int | tuple[int, int]
"""Size of a patch, pixels: the side of a square patch, or (height, width)."""


def patch_sides(patch_size: PatchSize) -> tuple[int, int]:
    """Return the (height, width) of a patch, pixels."""
    return patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)


def count_patches(height: int, width: int, patch_size: PatchSize) -> int:
    """Count the patches of a picture of ``height`` x ``width`` pixels.

    Raises:
        ValueError: the patches do not fill the picture.
    """
    p, q = patch_sides(patch_size)
    if height % p or width % q:
        raise ValueError(f"patches of {p} x {q} pixels do not fill a picture of {height} x {width}")
    return (height // p) * (width // q)


@dataclass(frozen=True, slots=True)
class BlockDims:
    """Sizes of one transformer block, the epsilon of its norms and its activation."""

    embed_dim: int
    num_heads: int
    mlp_dim: int
    norm_eps: float = NORM_EPS
    act: Activation = "gelu"


class TransformerDims:
    """Base of the sizes of each family of transformers, which are frozen dataclasses with these fields."""

    __slots__ = ()
    embed_dim: int
    num_heads: int
    mlp_dim: int
    norm_eps: float
    act: Activation

    @property
    def block(self) -> BlockDims:
        """The sizes of one transformer block."""
        return BlockDims(self.embed_dim, self.num_heads, self.mlp_dim, self.norm_eps, self.act)


class PatchEmbed(nn.Module):
    """Linear embedding of the patches of a picture: (N, H, W, C) -> (N, P, D), row by row."""

    def __init__(self, patch_size: PatchSize, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_sides(patch_size)
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=self.patch_size, stride=self.patch_size)

    def forward(self, pictures: Tensor) -> Tensor:
        # A convolution whose stride is its kernel is one matrix product over channels-last pixels.
        p, q = self.patch_size
        patches = rearrange(pictures, "n (h p) (w q) c -> n (h w) (c p q)", p=p, q=q)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class TubeletEmbed(nn.Module):
    """Linear embedding of tubelets: (N, t, H, W, C) -> (N, P, D), by time, then row by row (ViViT, 3.2)."""

    def __init__(self, tubelet_size: tuple[int, int, int], in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.tubelet_size = tubelet_size
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=tubelet_size, stride=tubelet_size)

    def forward(self, units: Tensor) -> Tensor:
        u, p, q = self.tubelet_size
        tubelets = rearrange(units, "n (t u) (h p) (w q) c -> n (t h w) (c u p q)", u=u, p=p, q=q)
        return F.linear(tubelets, self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention: (N, P, D) -> (N, P, D).

    With ``num_queries`` = Q, only the first Q tokens are computed, which see all tokens: -> (N, Q, D).
    """

    attend: Callable[[Tensor, Tensor, Tensor], Tensor] = staticmethod(F.scaled_dot_product_attention)
    """How queries see values through keys: (N, A, Q, d), (N, A, P, d), (N, A, P, d) -> (N, A, Q, d).

    Explanations replace it for a while, in a model of their own.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide a width of {embed_dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "n p (three a d) -> three n a p d", three=3, a=self.num_heads)
        seen = self.attend(q[:, :, :num_queries], k, v)
        return self.proj(rearrange(seen, "n a p d -> n p (a d)"))


class Mlp(nn.Module):
    """Two linear layers with an activation between them: (N, P, D) -> (N, P, D)."""

    def __init__(self, embed_dim: int, mlp_dim: int, act: Activation) -> None:
        super().__init__()
        self.act = act
        self.fc1 = nn.Linear(embed_dim, mlp_dim)
        self.fc2 = nn.Linear(mlp_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(_ACTIVATIONS[self.act](self.fc1(x)))


class EncoderBlock(nn.Module):
    """One pre-norm transformer block: (N, P, D) -> (N, P, D).

    With ``num_queries`` = Q, only the first Q tokens are computed: -> (N, Q, D).
    """

    def __init__(self, dims: BlockDims) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dims.embed_dim, eps=dims.norm_eps)
        self.attn = Attention(dims.embed_dim, dims.num_heads)
        self.norm2 = nn.LayerNorm(dims.embed_dim, eps=dims.norm_eps)
        self.mlp = Mlp(dims.embed_dim, dims.mlp_dim, dims.act)

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:
        x = x[:, :num_queries] + self.attn(self.norm1(x), num_queries)
        return x + self.mlp(self.norm2(x))


class Adapter(nn.Module):
    """A narrow residual branch that adapts frozen embeddings: (..., D) -> (..., D).

    It starts as the identity. Houlsby et al., arXiv 1902.00751.
    """

    def __init__(self, embed_dim: int, adapter_dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(embed_dim, adapter_dim)
        self.up = nn.Linear(adapter_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(x)))


def checked_depth(depth: int) -> int:
    """Return ``depth``, the number of blocks of an encoder.

    Raises:
        ValueError: ``depth`` is more than ``MAX_DEPTH``.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"an encoder has at most {MAX_DEPTH} blocks, this one has {depth}")
    return depth


class Encoder(nn.Module):
    """Class token, position embeddings, blocks and a last norm: (N, P, D) -> (N, 1 + P, D).

    Token 0 of the result is the class token.
    """

    def __init__(self, num_tokens: int, depth: int, dims: BlockDims) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(empty(1, 1, dims.embed_dim))
        self.pos_embed = nn.Parameter(empty(1, 1 + num_tokens, dims.embed_dim))
        self.blocks = nn.Sequential(*(EncoderBlock(dims) for _ in range(checked_depth(depth))))
        self.norm = nn.LayerNorm(dims.embed_dim, eps=dims.norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(tokens)))

    def cls(self, tokens: Tensor) -> Tensor:
        """Return the class token alone, the only one that the last block computes: (N, P, D) -> (N, D)."""
        *others, last = self.blocks
        x = self.embed(tokens)
        for block in others:
            x = block(x)
        return self.read_out(last(x, 1))

    def embed(self, tokens: Tensor) -> Tensor:
        """Prepend the class token, and add position embeddings: (N, P, D) -> (N, 1 + P, D)."""
        cls_token = repeat(self.cls_token, "1 1 d -> n 1 d", n=tokens.shape[0])
        return cat((cls_token, tokens), dim=1) + self.pos_embed

    def read_out(self, x: Tensor) -> Tensor:
        """Return the normalised class token of what the last block computed: (N, 1 + P, D) -> (N, D)."""
        return self.norm(x[:, 0])


def initialise(model: nn.Module) -> None:
    """Initialise a model as ViT does: weights from a truncated normal of std 0.02, biases zero.

    Patch projections keep torch's initialisation.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Encoder):
            nn.init.trunc_normal_(module.cls_token, std=0.02)
            nn.init.trunc_normal_(module.pos_embed, std=0.02)
    for module in model.modules():
        if isinstance(module, Adapter):
            nn.init.zeros_(module.up.weight)
