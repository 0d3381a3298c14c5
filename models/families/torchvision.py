"""The ``torchvision`` family: torchvision's classifiers of frames (CNNs) and clips (3D CNNs, Swin3D, MViT).

B windows, S units in a window, N units in a batch, t frames in a unit, H W C pixels, K classes.
"""

from dataclasses import dataclass
from typing import Any

from einops import rearrange
from torch import Tensor

from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import CPU_BATCH_TOKENS, VideoModel


@dataclass(frozen=True, slots=True)
class TorchvisionDims:
    """``name`` is that of torchvision's model registry; ``frames`` are those of a clip, 1 for an image model.

    ``aux_heads``: whether GoogLeNet or Inception has its auxiliary heads, which only training needs.
    """

    name: str
    frames: int
    aux_heads: bool = True


class TorchvisionModel(VideoModel):
    """A model of torchvision: a unit, a frame or clip, is embedded by its logits (D = K), then averaged."""

    supports_cuda_graphs = False  # the library's code does not promise it

    def __init__(self, dims: TorchvisionDims, preprocessing: Preprocessing, num_classes: int) -> None:
        # Imported late: it takes longer to import than all other families, and most servers do not use it.
        import torchvision

        super().__init__(preprocessing)
        self.of_frames = dims.frames == 1
        self.tokens_per_unit = CPU_BATCH_TOKENS // (8 if self.of_frames else 1)
        # GoogLeNet and Inception initialise weights slowly and warn of it; the weights are replaced anyway.
        options: dict[str, Any] = {} if dims.aux_heads else {"aux_logits": False, "init_weights": False}
        self.net = torchvision.models.get_model(dims.name, weights=None, num_classes=num_classes, **options)

    def encode(self, units: Tensor) -> Tensor:
        pixels = self.normalise(units)
        if self.of_frames:
            return self.net(rearrange(pixels, "n 1 h w c -> n c h w"))
        return self.net(rearrange(pixels, "n t h w c -> n c t h w"))

    def classify(self, windows: Tensor) -> Tensor:
        return windows.mean(dim=1)
