"""Import timm's checkpoints: state dicts of its ``VisionTransformer``, and folders of its hub."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.models.checkpoints.foreign_checkpoint import ForeignCheckpoint, read_folder_tensors, read_json
from tubelet.models.checkpoints.torchvision import frame_sampling, vit_dims
from tubelet.models.errors import CannotImport
from tubelet.models.families.framewise import FramewiseDims
from tubelet.models.families.timm import TimmDims
from tubelet.models.families.vit import ViTDims
from tubelet.models.spec import Preprocessing, Provenance, Resample

# timm's name of a filter -> tubelet's.
_RESAMPLE: dict[str, Resample] = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos"}

# The parameters of a plain ViT; others have further norms, layer scale, registers, or no class token.
_PLAIN_VIT = re.compile(
    r"cls_token|pos_embed|(patch_embed\.proj|norm|head)\.(weight|bias)"
    r"|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])\.(weight|bias)"
)


def from_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename timm's parameters to tubelet's, whose encoder is a module of its own; values do not change."""
    own = re.compile(r"^(cls_token|pos_embed|blocks\.|norm\.)")
    return {own.sub(r"spatial.\1", name): value for name, value in state.items()}


def as_framewise(state: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """Rename timm's parameters to those of ``framewise``; ``head`` is timm's name of the last layer."""
    old = f"{head}."
    return {
        f"head.{name.removeprefix(old)}" if name.startswith(old) else f"image.net.{name}": value
        for name, value in state.items()
    }


def read_timm(folder: Path, provenance: Provenance, window_s: float | None) -> ForeignCheckpoint:
    """Read a folder with timm's config.json ("architecture", "pretrained_cfg") and the weights.

    A plain ViT becomes a ``vit`` model, all others run through timm in a ``framewise`` model.

    Raises:
        CannotImport: the architecture has several heads, or is a ViT without a class token.
    """
    config = read_json(folder / "config.json")
    name, pretrained = config["architecture"], config["pretrained_cfg"]
    state = read_folder_tensors(folder)
    dims: ViTDims | FramewiseDims
    if name.startswith(("vit_", "deit_")) and all(map(_PLAIN_VIT.fullmatch, state)):
        state = from_timm(state)
        dims = vit_dims(state)
    else:
        head = pretrained["classifier"]
        if not isinstance(head, str):
            raise CannotImport(f"{folder} is timm's {name}, which has several heads: {', '.join(head)}")
        dims, state = FramewiseDims(timm=TimmDims(name)), as_framewise(state, head)
    return ForeignCheckpoint(
        dims=dims,
        preprocessing=_preprocessing(pretrained),
        sampling=frame_sampling(window_s),
        labels=tuple(config.get("label_names") or ()),
        state=state,
        description=f"timm's {name}.",
        licence=str(pretrained.get("license", "unknown")),
        provenance=provenance,
    )


def _preprocessing(pretrained: dict[str, Any]) -> Preprocessing:
    """Read the preprocessing from timm's ``pretrained_cfg``."""
    _, height, width = pretrained["input_size"]
    # timm scales the shorter side to size / crop_pct, rounded down, and cuts the centre out.
    share = pretrained.get("crop_pct", 0.875)
    rows, columns = math.floor(height / share), math.floor(width / share)
    if pretrained["interpolation"] not in _RESAMPLE:
        raise CannotImport(
            f"interpolation {pretrained['interpolation']!r} is not one of {', '.join(_RESAMPLE)}"
        )
    return Preprocessing(
        height,
        width,
        "stretch" if pretrained.get("crop_mode") == "squash" else "crop",
        tuple(pretrained["mean"]),
        tuple(pretrained["std"]),
        resize_height=None if rows == height else rows,
        resize_width=None if columns == width else columns,
        resample=_RESAMPLE[pretrained["interpolation"]],
        crop_rounding="half_even",
    )
