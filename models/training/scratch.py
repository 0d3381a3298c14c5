"""Sizes of small models to train from random weights, one of each family, and the frames that they see.

All but torchvision's large ones see 16 frames of 64 x 64 pixels in a window, so that a CPU trains them in
minutes and families can be compared.
"""

from dataclasses import dataclass

import torch

from tubelet.models.errors import CannotTrain
from tubelet.models.families.channel_stack import ChannelStackDims
from tubelet.models.families.divided import DividedDims
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.framewise import FramewiseDims, TemporalDims
from tubelet.models.families.joint import JointDims
from tubelet.models.families.r2plus1d import R2Plus1DDims
from tubelet.models.families.registry import Dims, build_on_meta
from tubelet.models.families.torchvision import TorchvisionDims
from tubelet.models.families.vit import ViTDims
from tubelet.models.spec import Family, Preprocessing, Sampling

FRAMES = 16  # of a window
SIDE = 64  # pixels
# Sides of torchvision's clip models, pixels; the larger ones cannot take smaller pictures.
_CLIP_SIDES = {
    "r3d_18": SIDE,
    "mc3_18": SIDE,
    "r2plus1d_18": SIDE,
    "s3d": 224,
    "mvit_v1_b": 224,
    "mvit_v2_s": 224,
    "swin3d_t": 224,
    "swin3d_s": 224,
    "swin3d_b": 224,
}
_WITH_AUX_HEADS = ("googlenet", "inception_v3")  # whose training they change: built without
_PATCH, _WIDTH, _HEADS, _MLP, _DEPTH = 8, 160, 5, 480, 4
_IMAGE = ViTDims(_PATCH, _WIDTH, _DEPTH, _HEADS, _MLP)
# Frames in a unit, sizes.
_SMALL: dict[str, tuple[int, Dims]] = {
    "vit": (1, _IMAGE),
    "factorised": (4, FactorisedDims((4, _PATCH, _PATCH), 4, _WIDTH, _DEPTH, 2, _HEADS, _MLP)),
    "channel_stack": (FRAMES, ChannelStackDims(FRAMES, _PATCH, _WIDTH, _DEPTH, _HEADS, _MLP)),
    "joint": (FRAMES, JointDims(FRAMES, (4, _PATCH, _PATCH), _WIDTH, _DEPTH, _HEADS, _MLP)),
    "divided": (FRAMES, DividedDims(FRAMES, _PATCH, _WIDTH, _DEPTH, _HEADS, _MLP)),
    "framewise": (1, FramewiseDims(vit=_IMAGE, temporal=TemporalDims(FRAMES, _WIDTH, 2, _HEADS, _MLP))),
    "r2plus1d": (FRAMES, R2Plus1DDims(FRAMES, 16, (16, 32, 64, 128), (1, 1, 1, 1))),
}
SCRATCH_FAMILIES: tuple[Family, ...] = (
    "vit",
    "factorised",
    "channel_stack",
    "joint",
    "divided",
    "framewise",
    "r2plus1d",
    "torchvision",
)
"""The families that can be trained from random weights."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """The sizes of a model to train from random weights, its pixels, and how it samples windows of 2 s."""

    dims: Dims
    sampling: Sampling
    preprocessing: Preprocessing


def scratch(family: str, variant: str = "") -> Scratch:
    """Return the sizes of a small model of ``family``; ``variant`` names one of torchvision's models.

    Raises:
        CannotTrain: the family has no such sizes, or the variant is missing, unknown, or one too many.
    """
    if family == "torchvision":
        return _of_torchvision(variant)
    if variant:
        raise CannotTrain(f"--variant names a model of --family torchvision; found {family} and {variant!r}")
    if family not in _SMALL:
        raise CannotTrain(
            f"no sizes of family {family!r} are known to train from random weights; there are "
            f"{', '.join(SCRATCH_FAMILIES)}"
        )
    return _scratch(*_SMALL[family], SIDE)


def _of_torchvision(name: str) -> Scratch:
    """Return the sizes of one of torchvision's models, which sees clips of 16 frames, or single frames.

    Raises:
        CannotTrain: torchvision has no such classifier, or it does not take pictures of this size.
    """
    from torchvision import models

    images, clips = (models.list_models(module=module) for module in (models, models.video))
    if name not in images + clips:
        raise CannotTrain(
            f"--family torchvision needs --variant, one of {', '.join(sorted(clips))}, or the name of an "
            f"image model such as resnet18; found {name!r}"
        )
    frames, side = (FRAMES, _CLIP_SIDES.get(name, 224)) if name in clips else (1, SIDE)
    found = _scratch(frames, TorchvisionDims(name, frames, name not in _WITH_AUX_HEADS), side)
    try:
        model = build_on_meta(found.dims, found.preprocessing, 2).eval()
        with torch.inference_mode():
            device = next(model.parameters()).device
            model.encode(torch.empty((1, frames, side, side, 3), dtype=torch.uint8, device=device))
    except Exception as error:  # a library's code may raise anything
        raise CannotTrain(
            f"torchvision's {name} does not take {frames} frames of {side} x {side} pixels: {error}"
        ) from error
    return found


def _scratch(frames_per_unit: int, dims: Dims, side: int) -> Scratch:
    """Return sizes with the sampling and preprocessing of all small models: the whole picture, stretched."""
    sampling = Sampling(
        frames_per_unit,
        FRAMES // frames_per_unit,
        window_s=2.0,
        stride_s=1.0,
        min_window_s=0.5,
        max_window_s=16.0,
    )
    grey, spread = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
    return Scratch(dims, sampling, Preprocessing(side, side, "stretch", grey, spread))
