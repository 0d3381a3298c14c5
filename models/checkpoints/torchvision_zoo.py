"""torchvision's own classifiers by name, with the labels and preprocessing of their weights' meta data."""

import urllib.error
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.models import WeightsEnum

from models.checkpoints.foreign import CannotImport, Foreign
from models.checkpoints.torchvision_vit import from_torchvision
from models.contract import Accuracy, Preprocessing, Provenance, Resample, Sampling
from models.torchvision_model import TorchvisionDims
from models.vit import ViTDims

# Prefix of a name -> (frames of a clip, frames a second) with which the weights' accuracy was measured.
_CLIPS = {"mvit": (16, 7.5), "swin3d": (32, 15.0), "s3d": (128, 15.0), "": (16, 15.0)}
FRAME_SAMPLING = Sampling(1, 8, 2.0, stride_s=2.0, min_window_s=0.5, max_window_s=8.0)
"""For image models, which have no window of their own."""


def read_torchvision(name: str, weights_name: str, window_s: float | None) -> Foreign:
    """The model of that name; without ``weights_name``, torchvision's default weights, which are downloaded.

    Raises:
        CannotImport: unknown names, a model that does not classify, or weights that cannot be had.
    """
    weights = _weights(name, weights_name)
    preset, meta = weights.transforms(), weights.meta
    is_video = name in torchvision.models.list_models(torchvision.models.video)
    frames, rate = next(clip for prefix, clip in _CLIPS.items() if name.startswith(prefix))
    if not is_video:
        frames = 1
    state = _state(weights)
    dims: TorchvisionDims | ViTDims = TorchvisionDims(name, frames)
    if name.startswith("vit_"):
        state = from_torchvision(state)
        dims = vit_dims(state)
    else:
        state = {f"net.{parameter}": value for parameter, value in state.items()}
    window = window_s or (frames / rate if is_video else FRAME_SAMPLING.window_s)
    return Foreign(
        dims=dims,
        preprocessing=_preprocessing(preset, is_video),
        sampling=Sampling(
            frames,
            1 if is_video else FRAME_SAMPLING.units_per_window,
            window,
            stride_s=window,
            min_window_s=window / 4,
            max_window_s=window * 4,
            position="start" if is_video else "middle",
        ),
        labels=tuple(meta["categories"]),
        state=state,
        description=f"torchvision's {name} with weights {weights.name}.",
        licence="BSD-3-Clause",
        provenance=Provenance(f"torchvision:{name}:{weights.name}", weights.url),
        accuracy=tuple(
            Accuracy(dataset, figures["acc@1"] / 100, "as torchvision reports it")
            for dataset, figures in meta.get("_metrics", {}).items()
            if "acc@1" in figures
        ),
    )


def vit_dims(state: dict[str, Tensor]) -> ViTDims:
    """The sizes of a ViT from its parameters under our names; its heads are 64 wide, as in every variant."""
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    blocks = {int(name.split(".")[2]) for name in state if name.startswith("spatial.blocks.")}
    hidden = state["head.fc1.weight"].shape[0] if "head.fc1.weight" in state else None
    return ViTDims(
        patch_size=patch,
        embed_dim=width,
        depth=len(blocks),
        num_heads=width // 64,
        mlp_dim=state["spatial.blocks.0.mlp.fc1.weight"].shape[0],
        representation_dim=hidden,
    )


def _weights(name: str, weights_name: str) -> WeightsEnum:
    known = [
        *torchvision.models.list_models(torchvision.models),
        *torchvision.models.list_models(torchvision.models.video),
    ]
    if name not in known:
        raise CannotImport(f"torchvision has no classifier {name!r}; it has {', '.join(known)}")
    choices = torchvision.models.get_model_weights(name)
    try:
        return choices[weights_name or "DEFAULT"]
    except KeyError:
        has = ", ".join(choice.name for choice in choices)
        raise CannotImport(f"torchvision's {name} has no weights {weights_name!r}; it has {has}") from None


def _state(weights: WeightsEnum) -> dict[str, Tensor]:
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise CannotImport(
            f"{weights.url} cannot be fetched ({error}); fetch it elsewhere and put it into {folder}"
        ) from error


def _preprocessing(preset: Any, is_video: bool) -> Preprocessing:
    crop = preset.crop_size
    height, width = crop if len(crop) == 2 else (crop[0], crop[0])
    resize = preset.resize_size
    rows, columns = resize if len(resize) == 2 else (resize[0], resize[0])
    resample: Resample = preset.interpolation.value
    if is_video:
        # The preset for clips resizes without antialiasing, as its models were trained.
        resample = "bilinear_aliased"
    return Preprocessing(
        height,
        width,
        "stretch" if len(resize) == 2 else "crop",
        tuple(preset.mean),
        tuple(preset.std),
        resize_height=None if rows == height else rows,
        resize_width=None if columns == width else columns,
        resample=resample,
        crop_rounding="half_even",
    )
