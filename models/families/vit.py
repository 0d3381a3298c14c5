"""The ``vit`` family: a vision transformer, frame by frame (Dosovitskiy et al., arXiv 2010.11929).

B windows, S units in a window, N units in a batch, H W C pixels, P tokens, D embedding width, K classes.
"""

from collections import OrderedDict
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
class ViTDims(TransformerDims):
    """Sizes of a ViT; ``patch_size`` is in pixels.

    ``representation_dim`` is the width of the head's hidden layer, as in the paper's pre-training; None: the
    head is one linear layer, as in its fine-tuning.
    """

    patch_size: PatchSize
    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    representation_dim: int | None = None
    norm_eps: float = NORM_EPS
    act: Activation = "gelu"


class ViT(AveragingModel):
    """A ViT: a unit is one frame, embedded by its class token; a window's logits are the mean over frames."""

    def __init__(self, dims: ViTDims, preprocessing: Preprocessing, num_classes: int) -> None:
        super().__init__(preprocessing)
        width = dims.embed_dim
        tokens = count_patches(preprocessing.height, preprocessing.width, dims.patch_size)
        self.patch_embed = PatchEmbed(dims.patch_size, 3, width)
        self.spatial = Encoder(tokens, dims.depth, dims.block)
        self.head = mlp_head(width, dims.representation_dim, num_classes)
        self.tokens_per_unit = tokens + 1
        initialise(self)

    def encode_tokens(self, units: Tensor) -> Tensor:
        """Compute all spatial tokens, class token first: (N, 1, H, W, C) uint8 -> (N, 1 + P, D)."""
        return self.spatial(self.tokenise(units))

    def encode(self, units: Tensor) -> Tensor:
        return self.spatial.cls(self.tokenise(units))

    def tokenise(self, units: Tensor) -> Tensor:
        """Normalise frames and embed their patches: (N, 1, H, W, C) uint8 -> (N, P, D)."""
        return self.patch_embed(rearrange(self.normalise(units), "n 1 h w c -> n h w c"))


def mlp_head(embed_dim: int, representation_dim: int | None, num_classes: int) -> nn.Module:
    """Build the classification head of arXiv 2010.11929, section 3.1: (..., D) -> (..., K)."""
    if representation_dim is None:
        return nn.Linear(embed_dim, num_classes)
    return nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(embed_dim, representation_dim),
            act=nn.Tanh(),
            fc2=nn.Linear(representation_dim, num_classes),
        )
    )
