"""The families by name: what each is built of, in one table."""

from models.channel_stack import ChannelStack, ChannelStackDims
from models.contract import Family, Preprocessing, VideoModel
from models.divided import Divided, DividedDims
from models.factorised import Factorised, FactorisedDims
from models.hf_model import HfDims, HfModel
from models.joint import Joint, JointDims
from models.torchvision_model import TorchvisionDims, TorchvisionModel
from models.vit import ViT, ViTDims

Dims = ViTDims | FactorisedDims | ChannelStackDims | JointDims | DividedDims | TorchvisionDims | HfDims

DIMS: dict[Family, type[Dims]] = {
    "vit": ViTDims,
    "factorised": FactorisedDims,
    "channel_stack": ChannelStackDims,
    "joint": JointDims,
    "divided": DividedDims,
    "torchvision": TorchvisionDims,
    "hf": HfDims,
}


def build_model(dims: Dims, preprocessing: Preprocessing, num_classes: int) -> VideoModel:
    """A model with random weights, of the family that the dims are of."""
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
        case HfDims():
            return HfModel(dims, preprocessing, num_classes)
