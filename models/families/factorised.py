"""The factorised family: ViViT's model 2 (Arnab et al., arXiv 2103.15691, section 3.3).

A spatial encoder embeds each unit (one tubelet deep) alone; a temporal encoder looks across units.
B windows, S units in a window, N units in a batch, t frames in a unit, H W C pixels, P tokens,
D embedding width, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tubelet.models.families.layers import (
    NORM_EPS,
    Activation,
    Adapter,
    Encoder,
    TransformerDims,
    TubeletEmbed,
    count_patches,
    initialise,
)
from tubelet.models.families.unit_pooling import UnitPool, unit_pooling
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import VideoModel


@dataclass(frozen=True, slots=True)
class FactorisedDims(TransformerDims):
    """Sizes of a factorised encoder; ``tubelet_size`` is (t, height, width) in frames and pixels.

    ``adapter_dim`` is the width of an adapter between the stages (Gowda et al., arXiv 2306.04822), if any.
    With ``pool``, the vector of a window is made of its units' embeddings, without the temporal transformer,
    whose weights stay for later training.
    """

    tubelet_size: tuple[int, int, int]
    units_per_window: int
    embed_dim: int
    spatial_depth: int
    temporal_depth: int
    num_heads: int
    mlp_dim: int
    norm_eps: float = NORM_EPS
    act: Activation = "gelu"
    adapter_dim: int | None = None
    pool: UnitPool | None = None


class Factorised(VideoModel):
    """A factorised encoder: the spatial class token embeds a unit, the temporal one classifies a window."""

    def __init__(self, dims: FactorisedDims, preprocessing: Preprocessing, num_classes: int) -> None:
        super().__init__(preprocessing)
        patches = count_patches(preprocessing.height, preprocessing.width, dims.tubelet_size[1:])
        width = dims.embed_dim
        self.patch_embed = TubeletEmbed(dims.tubelet_size, 3, width)
        self.spatial = Encoder(patches, dims.spatial_depth, dims.block)
        self.adapter = None if dims.adapter_dim is None else Adapter(width, dims.adapter_dim)
        self.temporal = Encoder(dims.units_per_window, dims.temporal_depth, dims.block)
        self.pooling = None if dims.pool is None else unit_pooling(dims.pool, width)
        self.head = nn.Linear(width if self.pooling is None else self.pooling.width, num_classes)
        self.tokens_per_unit = patches + 1
        initialise(self)

    def encode_tokens(self, units: Tensor) -> Tensor:
        """Compute all spatial tokens, class token first: (N, t, H, W, C) uint8 -> (N, 1 + P, D)."""
        return self.spatial(self.tokenise(units))

    def encode(self, units: Tensor) -> Tensor:
        return self.spatial.cls(self.tokenise(units))

    def pool(self, windows: Tensor) -> Tensor:
        if self.pooling is not None:
            return self.pooling(windows)
        return self.temporal.cls(self.adapt(windows))

    def adapt(self, windows: Tensor) -> Tensor:
        """Prepare embeddings for the temporal stage: (B, S, D) -> (B, S, D)."""
        return windows if self.adapter is None else self.adapter(windows)

    def tokenise(self, units: Tensor) -> Tensor:
        """Normalise units and embed their tubelets: (N, t, H, W, C) uint8 -> (N, P, D)."""
        return self.patch_embed(self.normalise(units))


@torch.no_grad()
def central_frame_(proj: nn.Conv3d, image_kernel: Tensor) -> None:
    """Fill a tubelet projection with an image model's patch kernel, at its middle frame only.

    The kernel (D, C, p, p) goes into (D, C, t, p, p), zeros elsewhere: training then starts from what the
    image model knows (ViViT, section 3.4).

    Raises:
        ValueError: the kernels' sizes differ.
    """
    wanted = (*proj.weight.shape[:2], *proj.weight.shape[3:])
    if tuple(image_kernel.shape) != wanted:
        raise ValueError(f"an image kernel of {wanted} is wanted, not {tuple(image_kernel.shape)}")
    proj.weight.zero_()
    proj.weight[:, :, proj.weight.shape[2] // 2] = image_kernel
