"""The joint space-time family: all tokens of a clip attend to each other.

ViViT's model 1 (Arnab et al., arXiv 2103.15691, section 3.3) and VideoMAE (Tong et al., arXiv 2203.12602).
B windows, S units in a window, N units in a batch, t frames in a unit, H W C pixels, P tokens,
D embedding width, K classes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, empty, nn

from tubelet.models.families.layers import (
    NORM_EPS,
    Activation,
    BlockDims,
    Encoder,
    EncoderBlock,
    TransformerDims,
    TubeletEmbed,
    checked_depth,
    count_patches,
    initialise,
)
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import AveragingModel


@dataclass(frozen=True, slots=True)
class JointDims(TransformerDims):
    """Sizes of a joint model over ``frames`` frames; ``tubelet_size`` is (t, height, width).

    ``pool`` says which vector embeds the clip: "cls", the class token after the last norm (ViViT), or "mean",
    the mean of all tokens, then a norm with ``pool_norm_eps`` (VideoMAE, which has no class token).
    """

    frames: int
    tubelet_size: tuple[int, int, int]
    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    pool: Literal["cls", "mean"] = "cls"
    pool_norm_eps: float = 1e-5
    norm_eps: float = NORM_EPS
    act: Activation = "gelu"


class MeanEncoder(nn.Module):
    """Position embeddings, blocks, mean over tokens, norm: (N, P, D) -> (N, D)."""

    def __init__(self, num_tokens: int, depth: int, dims: BlockDims, pool_norm_eps: float) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(sinusoids(num_tokens, dims.embed_dim)[None])
        self.blocks = nn.Sequential(*(EncoderBlock(dims) for _ in range(checked_depth(depth))))
        self.fc_norm = nn.LayerNorm(dims.embed_dim, eps=pool_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Add position embeddings, run the blocks, return the normalised mean token: (N, P, D) -> (N, D)."""
        return self.read_out(self.blocks(self.embed(tokens)))

    def embed(self, tokens: Tensor) -> Tensor:
        """Add position embeddings: (N, P, D) -> (N, P, D)."""
        return tokens + self.pos_embed

    def read_out(self, x: Tensor) -> Tensor:
        """Return the normalised mean of the tokens that the last block computed: (N, P, D) -> (N, D)."""
        return self.fc_norm(x.mean(dim=1))


class Joint(AveragingModel):
    """A joint model: a unit is a whole view of the window, the logits of views are averaged."""

    def __init__(self, dims: JointDims, preprocessing: Preprocessing, num_classes: int) -> None:
        super().__init__(preprocessing)
        t, p, q = dims.tubelet_size
        if dims.frames % t:
            raise ValueError(f"tubelets of {t} frames do not divide {dims.frames} frames")
        tokens = dims.frames // t * count_patches(preprocessing.height, preprocessing.width, (p, q))
        self.patch_embed = TubeletEmbed(dims.tubelet_size, 3, dims.embed_dim)
        self.spacetime: Encoder | MeanEncoder
        if dims.pool == "cls":
            self.spacetime = Encoder(tokens, dims.depth, dims.block)
        else:
            self.spacetime = MeanEncoder(tokens, dims.depth, dims.block, dims.pool_norm_eps)
        self.head = nn.Linear(dims.embed_dim, num_classes)
        self.tokens_per_unit = tokens
        initialise(self)

    def encode(self, units: Tensor) -> Tensor:
        tokens = self.tokenise(units)
        return self.spacetime.cls(tokens) if isinstance(self.spacetime, Encoder) else self.spacetime(tokens)

    def tokenise(self, units: Tensor) -> Tensor:
        """Normalise units and embed their tubelets: (N, t, H, W, C) uint8 -> (N, P, D)."""
        return self.patch_embed(self.normalise(units))


def sinusoids(positions: int, width: int) -> Tensor:
    """Return fixed sinusoidal position embeddings (arXiv 1706.03762, 3.5): -> (positions, width)."""
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    table = empty(positions, width)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : width // 2]
    return table
