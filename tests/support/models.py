"""A small model of each family, and random units for them."""

import torch

from tubelet.models.families.channel_stack import ChannelStackDims
from tubelet.models.families.divided import DividedDims
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.framewise import FramewiseDims, TemporalDims
from tubelet.models.families.joint import JointDims
from tubelet.models.families.r2plus1d import R2Plus1DDims
from tubelet.models.families.registry import Dims, build_model
from tubelet.models.families.torchvision import TorchvisionDims
from tubelet.models.families.vit import ViTDims
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import VideoModel

SIZE, CLASSES, WIDTH = 32, 5, 48
PREPROCESSING = Preprocessing(SIZE, SIZE, "crop", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
# Name of a case -> (frames in a unit, units in a window, dims).
CASES: dict[str, tuple[int, int, Dims]] = {
    "vit": (1, 6, ViTDims(16, WIDTH, 2, 3, 96)),
    "factorised": (2, 4, FactorisedDims((2, 8, 16), 4, WIDTH, 2, 2, 3, 96)),
    "channel_stack": (8, 3, ChannelStackDims(8, 8, WIDTH, 2, 3, 96)),
    "joint": (4, 2, JointDims(4, (2, 8, 8), WIDTH, 2, 3, 96)),
    "joint, mean": (4, 2, JointDims(4, (2, 8, 8), WIDTH, 2, 3, 96, pool="mean")),
    "divided": (4, 2, DividedDims(4, 8, WIDTH, 2, 3, 96)),
    "framewise": (
        *(1, 4),
        FramewiseDims(vit=ViTDims(16, WIDTH, 2, 3, 96), temporal=TemporalDims(4, WIDTH, 2, 3, 96)),
    ),
    "r2plus1d": (4, 2, R2Plus1DDims(4, 6, (8, 12, 16), (1, 1, 2))),
    "torchvision, frames": (1, 3, TorchvisionDims("mobilenet_v3_small", 1)),
    "torchvision, clips": (4, 2, TorchvisionDims("mc3_18", 4)),
}


def build(case: str) -> VideoModel:
    """Return the model of a ``case``, always with the same random weights."""
    torch.manual_seed(0)
    model = build_model(CASES[case][2], PREPROCESSING, CLASSES)
    for parameter in model.parameters():
        if not case.startswith(("torchvision", "r2plus1d")):  # norms of convolutions keep their signal
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def random_units(count: int, t: int) -> torch.Tensor:
    """Return ``count`` units of ``t`` random frames: (N, t, H, W, C)."""
    return torch.randint(0, 256, (count, t, SIZE, SIZE, 3), dtype=torch.uint8)
