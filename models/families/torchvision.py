"""torchvision's classifiers of frames and clips behind the contract: CNN baselines, hierarchical models.

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
    """``name`` in torchvision's model registry; ``frames`` of a clip, 1 for a model of single frames.

    ``aux_heads``: whether GoogLeNet or Inception has its heads for training, which answers do not need.
    """

    name: str
    frames: int
    aux_heads: bool = True


class TorchvisionModel(VideoModel):
    """A unit is one frame or one clip, embedded by its logits (D = K); a window's logits are their mean."""

    only_device_work = False  # the library's code promises no such thing

    def __init__(self, dims: TorchvisionDims, preprocessing: Preprocessing, num_classes: int) -> None:
        # Imported late: it takes longer than the other families together, which most servers make do with.
        import torchvision

        super().__init__(preprocessing)
        self.of_frames = dims.frames == 1
        self.tokens_per_unit = CPU_BATCH_TOKENS // (8 if self.of_frames else 1)
        # The two initialise weights slowly and warn of it; weights are loaded anyway.
        options: dict[str, Any] = {} if dims.aux_heads else {"aux_logits": False, "init_weights": False}
        self.net = torchvision.models.get_model(dims.name, weights=None, num_classes=num_classes, **options)

    def encode(self, units: Tensor) -> Tensor:
        pixels = self.normalise(units)
        if self.of_frames:
            return self.net(rearrange(pixels, "n 1 h w c -> n c h w"))
        return self.net(rearrange(pixels, "n t h w c -> n c t h w"))

    def classify(self, windows: Tensor) -> Tensor:
        return windows.mean(dim=1)
