"""The ``torchvision`` family: torchvision's classifiers of frames (CNNs) and clips (3D CNNs, Swin3D, MViT).

N units in a batch, t frames in a unit, H W C pixels, P positions, D embedding width, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from tubelet.models.families.deferred_head import defer_layer
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import CPU_BATCH_TOKENS, AveragingModel

# Prefixes of an architecture's name -> its head, the last layer; the first match counts.
_HEADS = (
    (("vit_",), "heads.head"),
    (("mvit_",), "head.1"),
    (("swin",), "head"),
    (("s3d", "mobilenet_v2", "efficientnet_", "mnasnet", "squeezenet"), "classifier.1"),
    (("mobilenet_v3_",), "classifier.3"),
    (("convnext_",), "classifier.2"),
    (("maxvit_",), "classifier.5"),
    (("alexnet", "vgg"), "classifier.6"),
    (("densenet",), "classifier"),
    (("",), "fc"),
)
_SQUEEZENET_CHANNELS = 512  # of its last feature map


@dataclass(frozen=True, slots=True)
class TorchvisionDims:
    """``name`` is that of torchvision's model registry; ``frames`` are those of a clip, 1 for an image model.

    ``aux_heads``: whether GoogLeNet or Inception has its auxiliary heads, which only training needs.
    """

    name: str
    frames: int
    aux_heads: bool = True


def head_of(name: str) -> str:
    """Return the name of the head of architecture ``name``."""
    return next(head for prefixes, head in _HEADS if name.startswith(prefixes))


class TorchvisionModel(AveragingModel):
    """A model of torchvision: a unit, a frame or clip, is embedded by the input of the network's last layer.

    SqueezeNet averages over positions only after a last layer with an activation. A unit's embedding is its
    whole last feature map there.
    """

    supports_cuda_graphs = False  # the library's code does not promise it

    def __init__(self, dims: TorchvisionDims, preprocessing: Preprocessing, num_classes: int) -> None:
        # Imported late: it takes longer to import than all other families, and most servers do not use it.
        import torchvision

        super().__init__(preprocessing)
        self.of_frames = dims.frames == 1
        self.tokens_per_unit = CPU_BATCH_TOKENS // (8 if self.of_frames else 1)
        # GoogLeNet and Inception initialise weights slowly and warn of it; the weights are replaced anyway.
        options: dict[str, Any] = {} if dims.aux_heads else {"aux_logits": False, "init_weights": False}
        net: Any = torchvision.models.get_model(dims.name, weights=None, num_classes=num_classes, **options)
        self.net, self.head = net, defer_layer(net, head_of(dims.name))
        if dims.name.startswith("squeezenet"):
            net.classifier[-1] = nn.Identity()  # in place of the mean over positions
            self.head = partial(_mean_over_positions, self.head)

    def encode(self, units: Tensor) -> Tensor:
        pixels = self.normalise(units)
        if self.of_frames:
            return self.net(rearrange(pixels, "n 1 h w c -> n c h w"))
        return self.net(rearrange(pixels, "n t h w c -> n c t h w"))


def _mean_over_positions(layer: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    """Compute SqueezeNet's logits from its last feature maps: (..., D P) -> (..., K)."""
    positions = rearrange(maps, "... (d p) -> ... p d", d=_SQUEEZENET_CHANNELS)
    return layer(positions).relu().mean(dim=-2)
