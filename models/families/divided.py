"""The divided space-time family: TimeSformer (Bertasius et al., arXiv 2102.05095, section 3).

Each block attends across time at one patch position, then across space within one frame.
B windows, S units in a window, N units in a batch, t frames in a unit, H W C pixels, P patches of a frame,
D embedding width, K classes.
"""

from dataclasses import dataclass
from typing import cast

from einops import rearrange, repeat
from torch import Tensor, cat, empty, nn

from tubelet.models.families.layers import (
    NORM_EPS,
    Activation,
    Attention,
    BlockDims,
    Mlp,
    PatchEmbed,
    PatchSize,
    TransformerDims,
    checked_depth,
    count_patches,
    initialise,
)
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import AveragingModel


@dataclass(frozen=True, slots=True)
class DividedDims(TransformerDims):
    """Sizes of a TimeSformer over ``frames`` frames; ``patch_size`` is in pixels."""

    frames: int
    patch_size: PatchSize
    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    norm_eps: float = NORM_EPS
    act: Activation = "gelu"


class DividedBlock(nn.Module):
    """One block, time then space then mlp: class token (N, 1, D), tokens (N, t, P, D) -> the same shapes."""

    def __init__(self, dims: BlockDims) -> None:
        super().__init__()
        width = dims.embed_dim
        self.temporal_norm1 = nn.LayerNorm(width, eps=dims.norm_eps)
        self.temporal_attn = Attention(width, dims.num_heads)
        self.temporal_fc = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=dims.norm_eps)
        self.attn = Attention(width, dims.num_heads)
        self.norm2 = nn.LayerNorm(width, eps=dims.norm_eps)
        self.mlp = Mlp(width, dims.mlp_dim, dims.act)

    def forward(self, cls_token: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token and the tokens after the block: (N, 1, D), (N, t, P, D)."""
        tokens = self._over_time(tokens)
        seen = self._over_space(cls_token, tokens)
        tokens = tokens + seen[:, :, 1:]
        return self._cls(cls_token, seen), tokens + self.mlp(self.norm2(tokens))

    def cls(self, cls_token: Tensor, tokens: Tensor) -> Tensor:
        """Compute the class token alone, for the last block: (N, 1, D), (N, t, P, D) -> (N, 1, D)."""
        return self._cls(cls_token, self._over_space(cls_token, self._over_time(tokens), 1))

    def _over_time(self, tokens: Tensor) -> Tensor:
        """Attend across the frames at each patch position: (N, t, P, D) -> (N, t, P, D)."""
        tracks = rearrange(self.temporal_norm1(tokens), "n t p d -> (n p) t d")
        moved = self.temporal_fc(self.temporal_attn(tracks))
        return tokens + rearrange(moved, "(n p) t d -> n t p d", p=tokens.shape[2])

    def _over_space(self, cls_token: Tensor, tokens: Tensor, num_queries: int | None = None) -> Tensor:
        """Attend within each frame, class token first: (N, 1, D), (N, t, P, D) -> (N, t, 1 + P, D).

        With ``num_queries`` = Q, only the first Q of the 1 + P tokens are computed.
        """
        t = tokens.shape[1]
        frames = cat((repeat(cls_token, "n 1 d -> n t 1 d", t=t), tokens), dim=2)
        return rearrange(
            self.attn(self.norm1(frames.flatten(0, 1)), num_queries), "(n t) p d -> n t p d", t=t
        )

    def _cls(self, cls_token: Tensor, seen: Tensor) -> Tensor:
        """Update the class token from what it saw in each frame: (N, 1, D), (N, t, 1 + P, D) -> (N, 1, D)."""
        # The class token attends to each frame separately; the results are averaged.
        cls_token = cls_token + seen[:, :, 0].mean(dim=1, keepdim=True)
        return cls_token + self.mlp(self.norm2(cls_token))


class Divided(AveragingModel):
    """A TimeSformer: a unit is a whole view of the window, the logits of views are averaged."""

    def __init__(self, dims: DividedDims, preprocessing: Preprocessing, num_classes: int) -> None:
        super().__init__(preprocessing)
        width = dims.embed_dim
        patches = count_patches(preprocessing.height, preprocessing.width, dims.patch_size)
        self.patch_embed = PatchEmbed(dims.patch_size, 3, width)
        self.cls_token = nn.Parameter(empty(1, 1, width))
        self.pos_embed = nn.Parameter(empty(1, 1 + patches, width))
        self.time_embed = nn.Parameter(empty(1, dims.frames, width))
        self.blocks = nn.ModuleList(DividedBlock(dims.block) for _ in range(checked_depth(dims.depth)))
        self.norm = nn.LayerNorm(width, eps=dims.norm_eps)
        self.head = nn.Linear(width, num_classes)
        self.tokens_per_unit = dims.frames * patches
        initialise(self)
        for embedding in (self.cls_token, self.pos_embed, self.time_embed):
            nn.init.trunc_normal_(embedding, std=0.02)

    def encode(self, units: Tensor) -> Tensor:
        cls_token, tokens = self.embed(units)
        for block in self.blocks[:-1]:
            cls_token, tokens = block(cls_token, tokens)
        return self.read_out(cast(DividedBlock, self.blocks[-1]).cls(cls_token, tokens))

    def embed(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what the first block gets, with positions: (N, t, H, W, C) -> (N, 1, D), (N, t, P, D)."""
        pixels = self.normalise(units)
        patches = rearrange(self.patch_embed(pixels.flatten(0, 1)), "(n t) p d -> n t p d", n=units.shape[0])
        tokens = patches + self.pos_embed[:, None, 1:] + self.time_embed[:, :, None]
        cls_token = repeat(self.cls_token + self.pos_embed[:, :1], "1 1 d -> n 1 d", n=units.shape[0])
        return cls_token, tokens

    def read_out(self, cls_token: Tensor) -> Tensor:
        """Return the normalised class token: (N, 1, D) -> (N, D)."""
        return self.norm(cls_token[:, 0])
