"""The table of model families: the class of sizes of each, and how to build a model of it."""

from collections.abc import Mapping

import torch

from tubelet.models.families.channel_stack import ChannelStack, ChannelStackDims
from tubelet.models.families.divided import Divided, DividedDims
from tubelet.models.families.factorised import Factorised, FactorisedDims
from tubelet.models.families.framewise import Framewise, FramewiseDims
from tubelet.models.families.huggingface import HfDims, HfModel
from tubelet.models.families.joint import Joint, JointDims
from tubelet.models.families.plugins import PluginDims, build_plugin
from tubelet.models.families.r2plus1d import R2Plus1D, R2Plus1DDims
from tubelet.models.families.torchvision import TorchvisionDims, TorchvisionModel
from tubelet.models.families.vit import ViT, ViTDims
from tubelet.models.spec import Family, Preprocessing
from tubelet.models.video_model import VideoModel

Dims = (
    ViTDims
    | FactorisedDims
    | ChannelStackDims
    | JointDims
    | DividedDims
    | TorchvisionDims
    | FramewiseDims
    | R2Plus1DDims
    | HfDims
    | PluginDims
)

DIMS: dict[Family, type[Dims]] = {
    "vit": ViTDims,
    "factorised": FactorisedDims,
    "channel_stack": ChannelStackDims,
    "joint": JointDims,
    "divided": DividedDims,
    "torchvision": TorchvisionDims,
    "framewise": FramewiseDims,
    "r2plus1d": R2Plus1DDims,
    "hf": HfDims,
}


def family_of(dims: Dims) -> Family:
    """Return the family whose sizes ``dims`` are."""
    return next(family for family, kind in DIMS.items() if isinstance(dims, kind))


def build_model(dims: Dims, preprocessing: Preprocessing, num_classes: int) -> VideoModel:
    """Build a model with random weights; the type of ``dims`` chooses the family."""
    match dims:
        case ViTDims():
            return ViT(dims, preprocessing, num_classes)
        case FactorisedDims():
            return Factorised(dims, preprocessing, num_classes)
        case ChannelStackDims():
            return ChannelStack(dims, preprocessing, num_classes)
        case JointDims():
            return Joint(dims, preprocessing, num_classes)
        case DividedDims():
            return Divided(dims, preprocessing, num_classes)
        case TorchvisionDims():
            return TorchvisionModel(dims, preprocessing, num_classes)
        case FramewiseDims():
            return Framewise(dims, preprocessing, num_classes)
        case R2Plus1DDims():
            return R2Plus1D(dims, preprocessing, num_classes)
        case HfDims():
            return HfModel(dims, preprocessing, num_classes)
        case PluginDims():
            return build_plugin(dims, preprocessing, num_classes)


def build_on_meta(dims: Dims, preprocessing: Preprocessing, num_classes: int) -> VideoModel:
    """Build a model on torch's meta device: it takes no memory, however large ``dims`` are."""
    # torchvision computes the sizes of RegNets with tensors, which must have values; their size is bounded.
    image = dims.torchvision if isinstance(dims, FramewiseDims) else dims
    if isinstance(image, TorchvisionDims) and image.name.startswith("regnet_"):
        return build_model(dims, preprocessing, num_classes)
    with torch.device("meta"):
        return build_model(dims, preprocessing, num_classes)


def describe_mismatch(model: VideoModel, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Say why parameters of these names and ``shapes`` do not fill ``model``; empty if they do."""
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    missing = sorted(wanted.keys() - shapes.keys())
    extra = sorted(shapes.keys() - wanted.keys())
    parts = [f"{len(missing)} missing, such as {missing[0]}"] if missing else []
    parts += [f"{len(extra)} unexpected, such as {extra[0]}"] if extra else []
    if not parts:
        parts = [
            f"{name} has shape {shapes[name]}, the model's is {shape}"
            for name, shape in wanted.items()
            if shapes[name] != shape
        ][:1]
    return "; ".join(parts)
