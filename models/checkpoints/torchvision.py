"""Import torchvision's classifiers by name, with the labels and preprocessing of their weights."""

import math
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.models import WeightsEnum

from tubelet.models.checkpoints.foreign_checkpoint import ForeignCheckpoint, read_tensors
from tubelet.models.checkpoints.state_dict import ATTRIBUTES
from tubelet.models.checkpoints.torchvision_heads import (
    of_inner_model,
    with_usual_head,
    without_auxiliary_heads,
)
from tubelet.models.errors import CannotImport
from tubelet.models.families.torchvision import TorchvisionDims, head_of
from tubelet.models.families.vit import ViTDims
from tubelet.models.spec import Accuracy, Preprocessing, Provenance, Resample, Sampling

# Pattern in torchvision's names -> tubelet's.
RENAMES = (
    # torchvision names the patch projection after its operation, timm after its part.
    (r"^conv_proj\.", "patch_embed.proj."),
    # torchvision's class token is the model's; tubelet's the encoder's, since factorised models have two.
    (r"^class_token$", "spatial.cls_token"),
    (r"^encoder\.pos_embedding$", "spatial.pos_embed"),
    (r"^encoder\.ln\.", "spatial.norm."),
    # torchvision's blocks are an OrderedDict "encoder_layer_N", tubelet's a plain sequence.
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"spatial.blocks.\1."),
    (r"\.ln_1\.", ".norm1."),
    (r"\.ln_2\.", ".norm2."),
    # nn.MultiheadAttention keeps q, k and v in one parameter, whose rows are in the order of qkv.
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    # Before torchvision 0.12 the two layers were linear_1 and linear_2, since then 0 and 3.
    (r"\.mlp\.(?:linear_1|0)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:linear_2|3)\.", ".mlp.fc2."),
    # With a hidden layer, the head is two linear layers.
    (r"^heads\.pre_logits\.", "head.fc1."),
)


def from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of torchvision's ViT to tubelet's; values do not change."""
    last = "head.fc2." if "heads.pre_logits.weight" in state else "head."
    renamed = {}
    for name, value in state.items():
        ours = re.sub(r"^heads\.head\.", last, name)
        for pattern, replacement in RENAMES:
            ours = re.sub(pattern, replacement, ours)
        renamed[ours] = value
    return renamed


# Prefix of a name -> (frames of a clip, frames a second) of torchvision's accuracy measurements.
_CLIPS = {"mvit": (16, 7.5), "swin3d": (32, 15.0), "s3d": (128, 15.0), "": (16, 15.0)}
# Models that change mean and std to 0.5 themselves, whatever the preset has done.
_NORMALISED_WITHIN = ("googlenet", "inception_v3")
_WITH_AUX_HEADS = _NORMALISED_WITHIN
_HALF = (0.5, 0.5, 0.5)
# Width of an image ViT -> number of heads, where heads are not 64 wide: so400m, huge, giant, gigantic.
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
_WIDEST_OF_64 = 1024  # the largest width of a ViT with heads 64 wide
_MAX_LISTED = 3  # parameters in a warning
_IMAGE_WINDOW_S, _IMAGE_FRAMES = 2.0, 8  # of image models, which have no window of their own


def frame_sampling(window_s: float | None) -> Sampling:
    """Return the sampling of an image model with windows of ``window_s``; None: of 2 seconds."""
    window = window_s or _IMAGE_WINDOW_S
    return Sampling(1, _IMAGE_FRAMES, window, window, window / 4, window * 4)


def _clip_sampling(frames: int, window: float) -> Sampling:
    """Return the sampling of a video model, whose only unit has ``frames`` frames."""
    return Sampling(frames, 1, window, window, window / 4, window * 4, position="start")


def read_torchvision(
    name: str, weights_name: str, window_s: float | None, file: Path | None = None
) -> ForeignCheckpoint:
    """Read torchvision's model ``name``; without ``weights_name``, its default weights, which are downloaded.

    ``file`` holds a fine-tuned model's weights instead; its preprocessing is that of torchvision's weights.

    Raises:
        CannotImport: a name is unknown, the model is not a classifier, or its weights cannot be read.
    """
    choices = _choices(name)
    left_out: tuple[str, ...] = ()
    if file is None:
        weights = _chosen(name, weights_name, choices)
        state = _state(weights)
    else:
        state, left_out = of_inner_model(_usual_names(read_tensors(file, ATTRIBUTES)), name)
        state = with_usual_head(state, name, file)
        weights = (
            _chosen(name, weights_name, choices)
            if weights_name
            else _weights_of_same_size(name, choices, state)
        )
    foreign = _foreign(name, weights, without_auxiliary_heads(state), window_s)
    if file is None:
        return foreign
    return replace(
        foreign,
        labels=(),
        num_classes=len(state[f"{head_of(name)}.weight"]),
        description=f"torchvision's {name} with the weights of {file.name}.",
        licence="unknown",
        provenance=Provenance(f"torchvision:{name}", file.name),
        accuracy=(),
        warnings=(
            f"{file.name} does not state its preprocessing: that of torchvision's weights "
            f"{weights.name} is used; choose another with torchvision:{name}:WEIGHTS, one of "
            f"{', '.join(choice.name for choice in choices)}",
            *_left_out(left_out),
        ),
    )


def _left_out(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a warning that lists the parameters that were left out; nothing if there are none."""
    if not names:
        return ()
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return (f"not of the model, and left out: {', '.join(names[:_MAX_LISTED])}{more}",)


def _foreign(
    name: str, weights: WeightsEnum, state: dict[str, Tensor], window_s: float | None
) -> ForeignCheckpoint:
    """Build the checkpoint of model ``name``: parameters from ``state``, all else from ``weights``."""
    preset, meta = weights.transforms(), weights.meta
    is_video = name in torchvision.models.list_models(torchvision.models.video)
    frames, rate = next(clip for prefix, clip in _CLIPS.items() if name.startswith(prefix))
    if not is_video:
        frames = 1
    dims: TorchvisionDims | ViTDims = TorchvisionDims(name, frames, aux_heads=name not in _WITH_AUX_HEADS)
    if name.startswith("vit_"):
        state = from_torchvision(state)
        dims = vit_dims(state)
    else:
        state = {f"net.{parameter}": value for parameter, value in state.items()}
    return ForeignCheckpoint(
        dims=dims,
        preprocessing=_preprocessing(name, preset, is_video),
        sampling=_clip_sampling(frames, window_s or frames / rate) if is_video else frame_sampling(window_s),
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
    """Read the sizes of a ViT from its parameters; its width tells the number of heads.

    Raises:
        CannotImport: no known ViT has this width, or a parameter is missing.
    """
    for needed in ("patch_embed.proj.weight", "spatial.pos_embed", "spatial.blocks.0.mlp.fc1.weight"):
        if needed not in state:
            raise CannotImport(f"the checkpoint is not a ViT: {needed} is missing")
    width, _, p, q = state["patch_embed.proj.weight"].shape
    if width not in _HEADS and (width > _WIDEST_OF_64 or width % 64):
        raise CannotImport(
            f"no known image ViT is {width} wide, so its number of heads is unknown; in transformers' "
            "format, its config.json has it"
        )
    blocks = {int(name.split(".")[2]) for name in state if name.startswith("spatial.blocks.")}
    hidden = state["head.fc1.weight"].shape[0] if "head.fc1.weight" in state else None
    return ViTDims(
        patch_size=p if p == q else (p, q),
        embed_dim=width,
        depth=len(blocks),
        num_heads=_HEADS.get(width, width // 64),
        mlp_dim=state["spatial.blocks.0.mlp.fc1.weight"].shape[0],
        representation_dim=hidden,
    )


def _choices(name: str) -> list[WeightsEnum]:
    """Return all weights that torchvision has for the model ``name``.

    Raises:
        CannotImport: torchvision has no such classifier.
    """
    known = [
        *torchvision.models.list_models(torchvision.models),
        *torchvision.models.list_models(torchvision.models.video),
    ]
    if name not in known:
        raise CannotImport(f"torchvision has no classifier {name!r}; it has {', '.join(known)}")
    return list(torchvision.models.get_model_weights(name))


def _chosen(name: str, weights_name: str, choices: list[WeightsEnum]) -> WeightsEnum:
    """Return the weights ``weights_name`` of model ``name``; if empty, torchvision's default ones.

    Raises:
        CannotImport: there are no such weights.
    """
    try:
        return torchvision.models.get_model_weights(name)[weights_name or "DEFAULT"]
    except KeyError:
        has = ", ".join(choice.name for choice in choices)
        raise CannotImport(f"torchvision's {name} has no weights {weights_name!r}; it has {has}") from None


def _weights_of_same_size(name: str, choices: list[WeightsEnum], state: dict[str, Tensor]) -> WeightsEnum:
    """Return the default weights; for a ViT, those whose pictures have as many patches as ``state``."""
    positions = state.get("encoder.pos_embedding")
    if positions is not None and "conv_proj.weight" in state:
        side = math.isqrt(positions.shape[1] - 1) * state["conv_proj.weight"].shape[-1]
        for choice in choices:
            if choice.transforms().crop_size[0] == side:
                return choice
    return _chosen(name, "", choices)


def _state(weights: WeightsEnum) -> dict[str, Tensor]:
    """Download torchvision's weights, or read them from its cache.

    Raises:
        CannotImport: they cannot be downloaded or read.
    """
    try:
        # torchvision reports the download on standard output, which is for the command's result.
        with redirect_stdout(sys.stderr):
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # no network, or a damaged pickle, which may raise anything
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CannotImport(
            f"{weights.url} cannot be fetched and read ({reason}); fetch it elsewhere and put it "
            f"into {folder}"
        ) from error
    return _usual_names(state)


def _usual_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the layers of DenseNet's released files as torchvision does when it loads them."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key): state[key] for key in state
    }


def _preprocessing(name: str, preset: Any, is_video: bool) -> Preprocessing:
    """Convert torchvision's preset transforms of the model ``name``."""
    crop = preset.crop_size
    height, width = crop if len(crop) == 2 else (crop[0], crop[0])
    resize = preset.resize_size
    rows, columns = resize if len(resize) == 2 else (resize[0], resize[0])
    resample: Resample = preset.interpolation.value
    if is_video:
        # The preset for clips resizes without antialiasing, as its models were trained.
        resample = "bilinear_aliased"
    is_half = name in _NORMALISED_WITHIN
    return Preprocessing(
        height,
        width,
        "stretch" if len(resize) == 2 else "crop",
        _HALF if is_half else tuple(preset.mean),
        _HALF if is_half else tuple(preset.std),
        resize_height=None if rows == height else rows,
        resize_width=None if columns == width else columns,
        resample=resample,
        crop_rounding="half_even",
    )
