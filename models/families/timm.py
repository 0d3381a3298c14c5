"""Image models of timm without their heads, such as EfficientNet and ResNet, for the ``framewise`` family.

N units in a batch, H W C pixels, D embedding width.
"""

from dataclasses import dataclass
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from tubelet.models.errors import MissingExtra
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import CPU_BATCH_TOKENS, AveragingModel


@dataclass(frozen=True, slots=True)
class TimmDims:
    """``name`` is an architecture of timm's registry, such as tf_efficientnet_lite0."""

    name: str


class TimmEncoder(AveragingModel):
    """An image model of timm: a unit is one frame, embedded by what the model's head would get.

    Raises:
        MissingExtra: timm is not installed.
        ValueError: timm has no such architecture.
    """

    supports_cuda_graphs = False  # the library's code does not promise it
    tokens_per_unit = CPU_BATCH_TOKENS // 8

    def __init__(self, dims: TimmDims, preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing)
        library = timm()
        # Other names would let timm fetch a model from the hub, or read one from a folder.
        if not library.is_model(dims.name):
            raise ValueError(f"timm {library.__version__} has no architecture {dims.name!r}")
        self.net: Any = library.create_model(dims.name, pretrained=False, num_classes=0)
        self.embed_dim: int = self.net.head_hidden_size
        self.head = nn.Identity()

    def encode(self, units: Tensor) -> Tensor:
        return self.net(rearrange(self.normalise(units), "n 1 h w c -> n c h w"))


def timm() -> Any:
    """Import the timm library, which takes seconds, only when a model needs it.

    Raises:
        MissingExtra: timm is not installed.
    """
    try:
        import timm as library
    except ModuleNotFoundError:
        raise MissingExtra("this model runs through timm: pip install 'tubelet[backbone]'") from None
    return library
