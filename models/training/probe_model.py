"""A model whose head is a linear probe on another model's frozen spatial stage."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from tubelet.models.errors import CannotTrain
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.framewise import FramewiseDims
from tubelet.models.families.registry import Dims, build_model
from tubelet.models.families.torchvision import TorchvisionDims, head_of
from tubelet.models.families.vit import ViTDims
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import VideoModel


def probe_dims(dims: Dims) -> dict[str, Dims]:
    """Return the sizes of the models that may be probes on a model of ``dims``, by the name of their vectors.

    Raises:
        CannotTrain: the model's family has none.
    """
    match dims:
        case FactorisedDims():
            return {
                "temporal transformer": replace(dims, pool=None),
                "mean": replace(dims, pool="mean"),
                "mean and change": replace(dims, pool="mean_and_change"),
            }
        case FramewiseDims(temporal=None):
            image = dims
        case ViTDims():
            image = FramewiseDims(vit=replace(dims, representation_dim=None))
        case TorchvisionDims(frames=1):
            image = FramewiseDims(torchvision=dims)
        case _:
            raise CannotTrain(
                "a probe needs an image model, or a model of the family factorised or framewise without a "
                f"temporal transformer; the sizes of this model are {type(dims).__name__}"
            )
    return {
        "mean": replace(image, pool="mean"),
        "mean and change": replace(image, pool="mean_and_change"),
    }


def build_probe(
    dims: Dims, base: Dims, state: Mapping[str, Tensor], preprocessing: Preprocessing, num_classes: int
) -> VideoModel:
    """Build a model of ``dims`` with the weights ``state`` of a model of ``base``, and a random head.

    ``dims`` come from ``probe_dims(base)``.
    """
    model = build_model(dims, preprocessing, num_classes).eval()
    old_head = "head."
    if isinstance(base, ViTDims | TorchvisionDims):
        state = {f"image.{name}": value for name, value in state.items()}
        old_head = f"image.net.{head_of(base.name)}." if isinstance(base, TorchvisionDims) else "image.head."
    kept = {name: value for name, value in state.items() if not name.startswith(old_head)}
    head = {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
    model.load_state_dict(kept | head)
    return model


@torch.no_grad()
def set_head_(model: VideoModel, layer: nn.Linear, temperature: float) -> None:
    """Give ``model`` the head ``layer``, whose logits are divided by ``temperature``."""
    head = model.get_submodule("head")
    head.get_parameter("weight").copy_(layer.weight / temperature)
    head.get_parameter("bias").copy_(layer.bias / temperature)
