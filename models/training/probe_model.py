"""A model whose head is a probe, linear or attentive, on another model's frozen spatial stage."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tubelet.models.errors import CannotTrain
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.framewise import FramewiseDims
from tubelet.models.families.registry import Dims, build_model
from tubelet.models.families.torchvision import TorchvisionDims, head_of
from tubelet.models.families.vit import ViTDims
from tubelet.models.spec import Preprocessing
from tubelet.models.training.probe_fit import ATTENTIVE, Probe
from tubelet.models.video_model import VideoModel

_POOLING = "pooling."


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


def attentive_dims(dims: Dims) -> dict[str, Dims]:
    """Return the sizes of the models that may be attentive probes, by the vectors that they start from.

    Raises:
        CannotTrain: the model's family has none.
    """
    linear = probe_dims(dims)
    return {
        vectors: replace(sizes, pool=ATTENTIVE[vectors])
        for vectors, sizes in linear.items()
        if vectors in ATTENTIVE and isinstance(sizes, FramewiseDims | FactorisedDims)
    }


def build_probe(
    dims: Dims, base: Dims, state: Mapping[str, Tensor], preprocessing: Preprocessing, num_classes: int
) -> VideoModel:
    """Build a model of ``dims`` with the weights ``state`` of a model of ``base``, and a head to be set.

    ``dims`` come from ``probe_dims(base)`` or ``attentive_dims(base)``.
    """
    model = build_model(dims, preprocessing, num_classes).eval()
    old_head = "head."
    if isinstance(base, ViTDims | TorchvisionDims):
        state = {f"image.{name}": value for name, value in state.items()}
        old_head = f"image.net.{head_of(base.name)}." if isinstance(base, TorchvisionDims) else "image.head."
    kept = {name: value for name, value in state.items() if not name.startswith((old_head, _POOLING))}
    head = {name: value for name, value in model.state_dict().items() if name.startswith(("head.", _POOLING))}
    model.load_state_dict(kept | head)
    return model


@torch.no_grad()
def set_probe_(model: VideoModel, probe: Probe, temperature: float) -> None:
    """Give ``model`` the pooling and the head of ``probe``, whose logits are divided by ``temperature``."""
    if probe.pooling is not None:
        model.get_submodule("pooling").load_state_dict(probe.pooling.state_dict())
    head = model.get_submodule("head")
    head.get_parameter("weight").copy_(probe.head.weight / temperature)
    head.get_parameter("bias").copy_(probe.head.bias / temperature)
