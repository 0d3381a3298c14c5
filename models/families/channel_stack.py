"""The channel-stack family: a ViT that sees the t frames of a unit as one picture of 3t channels.

Early fusion (Karpathy et al., CVPR 2014) with the transformer of arXiv 2010.11929.
B windows, S units in a window, N units in a batch, t frames in a unit, H W C pixels, P tokens,
D embedding width, K classes.
"""

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor, nn

from tubelet.models.families.layers import (
    NORM_EPS,
    Activation,
    Encoder,
    PatchEmbed,
    PatchSize,
    TransformerDims,
    count_patches,
    initialise,
)
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import AveragingModel


@dataclass(frozen=True, slots=True)
class ChannelStackDims(TransformerDims):
    """Sizes of a ViT over ``frames`` stacked frames; ``patch_size`` is in pixels."""

    frames: int
    patch_size: PatchSize
    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    norm_eps: float = NORM_EPS
    act: Activation = "gelu"


class ChannelStack(AveragingModel):
    """A ViT over stacked frames: a unit is a whole view of the window, the logits of views are averaged."""

    def __init__(self, dims: ChannelStackDims, preprocessing: Preprocessing, num_classes: int) -> None:
        super().__init__(preprocessing)
        width = dims.embed_dim
        tokens = count_patches(preprocessing.height, preprocessing.width, dims.patch_size)
        self.patch_embed = PatchEmbed(dims.patch_size, 3 * dims.frames, width)
        self.spatial = Encoder(tokens, dims.depth, dims.block)
        self.head = nn.Linear(width, num_classes)
        self.tokens_per_unit = tokens + 1
        initialise(self)

    def encode_tokens(self, units: Tensor) -> Tensor:
        """Compute all spatial tokens, class token first: (N, t, H, W, C) uint8 -> (N, 1 + P, D)."""
        return self.spatial(self.tokenise(units))

    def encode(self, units: Tensor) -> Tensor:
        return self.spatial.cls(self.tokenise(units))

    def tokenise(self, units: Tensor) -> Tensor:
        """Normalise units, stack their frames as channels, embed the patches: -> (N, P, D)."""
        return self.patch_embed(rearrange(self.normalise(units), "n t h w c -> n h w (t c)"))
