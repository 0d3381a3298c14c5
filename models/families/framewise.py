"""The ``framewise`` family: an image model embeds units of one frame, a temporal stage reads the units.

The late fusion of ViViT's model 2 (Arnab et al., arXiv 2103.15691, section 3.3) with any image model as the
spatial encoder. B windows, S units in a window, N units in a batch, H W C pixels, D width of an image model's
embedding, E width of a window's vector, K classes.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from tubelet.models.families.deferred_head import drop_layer
from tubelet.models.families.layers import (
    NORM_EPS,
    Activation,
    Encoder,
    TransformerDims,
    initialise,
)
from tubelet.models.families.timm import TimmDims, TimmEncoder
from tubelet.models.families.torchvision import TorchvisionDims, TorchvisionModel, head_of
from tubelet.models.families.unit_pooling import UnitPool, unit_pooling
from tubelet.models.families.vit import ViT, ViTDims
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import VideoModel

ImageDims = ViTDims | TorchvisionDims | TimmDims


@dataclass(frozen=True, slots=True)
class TemporalDims(TransformerDims):
    """Sizes of a temporal transformer over ``units_per_window`` units."""

    units_per_window: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    norm_eps: float = NORM_EPS
    act: Activation = "gelu"


@dataclass(frozen=True, slots=True)
class FramewiseDims:
    """Sizes of the image model, exactly one of three, and of the temporal transformer.

    Without a temporal transformer, ``pool`` says how the vector of a window is made of its units' embeddings.
    """

    vit: ViTDims | None = None
    torchvision: TorchvisionDims | None = None
    timm: TimmDims | None = None
    temporal: TemporalDims | None = None
    pool: UnitPool = "mean"

    def __post_init__(self) -> None:
        if self.temporal is not None and self.pool != "mean":
            raise ValueError(f"a temporal transformer takes the place of pool = {self.pool!r}")
        given = [each for each in (self.vit, self.torchvision, self.timm) if each is not None]
        if len(given) != 1:
            raise ValueError(f"one image model is wanted, vit, torchvision or timm; {len(given)} are given")

    @property
    def image(self) -> ImageDims:
        """The sizes of the image model."""
        dims = self.vit or self.torchvision or self.timm
        assert dims is not None
        return dims


class Framewise(VideoModel):
    """An image model as the spatial stage, and a temporal transformer or a pooling of units after it.

    An adapter, a linear layer, brings embeddings to the width of the transformer.
    """

    def __init__(self, dims: FramewiseDims, preprocessing: Preprocessing, num_classes: int) -> None:
        super().__init__(preprocessing)
        self.image, width = _image_encoder(dims.image, preprocessing)
        self.pooling = unit_pooling(dims.pool, width)
        self.adapter = self.temporal = None
        if (temporal := dims.temporal) is not None:
            self.adapter = nn.Linear(width, temporal.embed_dim)
            self.temporal = Encoder(temporal.units_per_window, temporal.depth, temporal.block)
            initialise(self.adapter)
            initialise(self.temporal)
            width = temporal.embed_dim
        else:
            width = self.pooling.width
        self.head = nn.Linear(width, num_classes)
        initialise(self.head)
        self.tokens_per_unit = self.image.tokens_per_unit
        self.supports_cuda_graphs = self.image.supports_cuda_graphs

    def encode(self, units: Tensor) -> Tensor:
        return self.image.encode(units)

    def pool(self, windows: Tensor) -> Tensor:
        if self.temporal is not None and self.adapter is not None:
            return self.temporal.cls(self.adapter(windows))
        return self.pooling(windows)


def _image_encoder(dims: ImageDims, preprocessing: Preprocessing) -> tuple[VideoModel, int]:
    """Build an image model without its head; return it and the width of its embeddings, D.

    Raises:
        ValueError: the image model takes clips, or has no embedding before its head.
    """
    match dims:
        case ViTDims():
            image = ViT(dims, preprocessing, num_classes=1)
            image.head = nn.Identity()
            return image, dims.embed_dim
        case TimmDims():
            image = TimmEncoder(dims, preprocessing)
            return image, image.embed_dim
        case TorchvisionDims():
            if dims.frames != 1 or dims.name.startswith("squeezenet"):
                raise ValueError(f"torchvision's {dims.name} does not embed single frames before its head")
            image = TorchvisionModel(dims, preprocessing, num_classes=1)
            return image, drop_layer(image.net, head_of(dims.name))
