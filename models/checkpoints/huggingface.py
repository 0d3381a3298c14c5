"""Import folders that transformers' ``save_pretrained`` wrote, here or on the hub.

The models are ViViT, VideoMAE, TimeSformer and ViT. A folder has config.json, weights, README.md, and
preprocessor_config.json or video_preprocessor_config.json.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.models.checkpoints.foreign_checkpoint import ForeignCheckpoint, read_folder_tensors, read_json
from tubelet.models.checkpoints.huggingface_config import (
    both_sides,
    complete_config,
    read_activation,
    read_id2label,
    read_licence,
    read_preprocessing,
)
from tubelet.models.checkpoints.huggingface_generic import read_through_transformers
from tubelet.models.errors import CannotImport
from tubelet.models.families.divided import DividedDims
from tubelet.models.families.joint import JointDims, sinusoids
from tubelet.models.families.layers import Activation, PatchSize, count_patches, patch_sides
from tubelet.models.families.registry import Dims
from tubelet.models.families.vit import ViTDims
from tubelet.models.spec import Preprocessing, Provenance, Sampling


class _UnsupportedByFamilies(CannotImport):
    """The config has an option that no family of tubelet has; transformers may still run the model."""


_HUB_FILES = ["*.json", "*.safetensors", "pytorch_model*.bin", "README.md"]

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}

# Pattern in transformers' names -> tubelet's. All four models name their layers alike.
_RENAMES = (
    (r"^(?:vivit|videomae|timesformer|vit)\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    # The mlp's two layers are named after their role in BERT.
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.temporal_attention\.output\.dense\.", ".temporal_attn.proj."),
    (r"\.temporal_attention\.attention\.qkv\.", ".temporal_attn.qkv."),
    (r"\.temporal_dense\.", ".temporal_fc."),
    (r"\.temporal_layernorm\.", ".temporal_norm1."),
    (r"\.attention\.attention\.qkv\.", ".attn.qkv."),
    # VideoMAE keeps the biases of q and v outside the layers, and has no bias for k.
    (r"\.attention\.attention\.q_bias$", ".attention.attention.query.bias"),
    (r"\.attention\.attention\.v_bias$", ".attention.attention.value.bias"),
)
_QKV = re.compile(r"^(.*)\.attention\.attention\.(query|key|value)\.(weight|bias)$")


def fetch_from_hub(name: str, revision: str) -> tuple[Path, str]:
    """Download a repository of the Hugging Face hub; return its folder and commit.

    Raises:
        CannotImport: huggingface_hub is not installed, or the download fails.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise CannotImport("hf: sources need huggingface_hub: pip install 'tubelet[hf]'") from None
    try:
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CannotImport(
            f"{name} cannot be fetched from the hub ({reason}); fetch config.json, preprocessor_config.json "
            "and model.safetensors elsewhere, put them into one folder and import that"
        ) from error
    return folder, folder.name


def read_hf(folder: Path, provenance: Provenance, window_s: float | None) -> ForeignCheckpoint:
    """Read the checkpoint in ``folder``; ``window_s`` is the time that a window spans, None: as trained.

    Four model types become models of tubelet's families. All other types, and video models with options that
    these families do not have, run through transformers.

    Raises:
        CannotImport: the model is not a video classifier, or an image classifier with such an option.
    """
    given = read_json(folder / "config.json")
    kind = given.get("model_type", "")
    if kind not in _READERS:
        return read_through_transformers(folder, given, provenance, window_s)
    config = complete_config(kind, given)
    activation = read_activation(config)
    preprocessing = read_preprocessing(folder, kind, both_sides(config["image_size"], "image_size"))
    try:
        dims, state, default_window_s = _READERS[kind](
            config, _renamed(read_folder_tensors(folder)), preprocessing
        )
    except _UnsupportedByFamilies:
        if kind == "vit":
            raise
        return read_through_transformers(folder, given, provenance, window_s)
    labels, problem = read_id2label(config)
    return ForeignCheckpoint(
        dims=dims,
        preprocessing=preprocessing,
        sampling=_sampling(dims, window_s or default_window_s),
        labels=labels,
        label_problem=problem,
        activation=activation,
        state=state,
        description=f"{config.get('architectures', [kind])[0]} with {config['num_hidden_layers']} layers.",
        licence=read_licence(folder),
        provenance=provenance,
    )


_ModelParts = tuple[Dims, dict[str, Tensor], float]
"""Sizes, parameters under tubelet's names, and the time that a window spans, seconds."""


def _vivit(config: dict[str, Any], state: dict[str, Tensor], _: Preprocessing) -> _ModelParts:
    """Read a ViViT as the ``joint`` family."""
    dims = JointDims(
        frames=config["num_frames"], tubelet_size=tuple(config["tubelet_size"]), **_block(config)
    )
    # 32 frames, every second one: the checkpoints' own training (arXiv 2103.15691, section 4.1), 25 fps.
    return dims, _with_prefix(state, "spacetime"), config["num_frames"] * 2 / 25


def _videomae(config: dict[str, Any], state: dict[str, Tensor], preprocessing: Preprocessing) -> _ModelParts:
    """Read a VideoMAE as the ``joint`` family with mean pooling."""
    if not config["use_mean_pooling"]:
        raise _UnsupportedByFamilies(
            "use_mean_pooling = false is not supported: only VideoMAE fine-tuned with fc_norm"
        )
    t, patch_size = int(config["tubelet_size"]), _patch_size(config)
    dims = JointDims(
        frames=config["num_frames"], tubelet_size=(t, *patch_sides(patch_size)), pool="mean", **_block(config)
    )
    patches = count_patches(preprocessing.height, preprocessing.width, patch_size)
    tokens = patches * (dims.frames // t)
    # transformers computes the positions, they are not in the checkpoint.
    state = {**state, "pos_embed": sinusoids(tokens, dims.embed_dim)[None]}
    # 16 frames, every fourth one, of videos at 30 fps (arXiv 2203.12602, section 4).
    return dims, _with_prefix(state, "spacetime"), config["num_frames"] * 4 / 30


def _timesformer(config: dict[str, Any], state: dict[str, Tensor], _: Preprocessing) -> _ModelParts:
    """Read a TimeSformer as the ``divided`` family."""
    attention = config["attention_type"]
    if attention == "joint_space_time":
        raise _UnsupportedByFamilies(f"attention_type {attention!r} is not supported")
    if attention != "divided_space_time":
        # With space_only attention, transformers returns one logit a frame.
        raise CannotImport(
            f"attention_type {attention!r} is not supported: only 'divided_' and 'joint_space_time'"
        )
    dims = DividedDims(frames=config["num_frames"], patch_size=_patch_size(config), **_block(config))
    state = {re.sub(r"^time_embeddings$", "time_embed", name): value for name, value in state.items()}
    # 8 frames, every 32nd one, of videos at 30 fps (arXiv 2102.05095, section 4).
    return dims, state, config["num_frames"] * 32 / 30


def _vit(config: dict[str, Any], state: dict[str, Tensor], _: Preprocessing) -> _ModelParts:
    """Read an image ViT as the ``vit`` family."""
    dims = ViTDims(patch_size=_patch_size(config), **_block(config))
    # An image model has no window; two seconds suit most actions.
    return dims, _with_prefix(state, "spatial"), 2.0


_READERS: dict[str, Callable[[dict[str, Any], dict[str, Tensor], Preprocessing], _ModelParts]] = {
    "vivit": _vivit,
    "videomae": _videomae,
    "timesformer": _timesformer,
    "vit": _vit,
}


def _block(config: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the dims of all families share."""
    act = config["hidden_act"]
    if act not in _ACTIVATIONS:
        raise _UnsupportedByFamilies(f"hidden_act {act!r} is not supported: only {', '.join(_ACTIVATIONS)}")
    if config["num_channels"] != 3:
        raise CannotImport(f"num_channels is {config['num_channels']}, but frames of videos have 3")
    return {
        "embed_dim": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_dim": config["intermediate_size"],
        "norm_eps": config["layer_norm_eps"],
        "act": _ACTIVATIONS[act],
    }


def _patch_size(config: dict[str, Any]) -> PatchSize:
    """Return the patch size of a config."""
    p, q = both_sides(config["patch_size"], "patch_size")
    return p if p == q else (p, q)


def _sampling(dims: Dims, window_s: float) -> Sampling:
    """Return the sampling of a model: one clip a window, or 8 single frames for an image ViT."""
    frames, units = (dims.frames, 1) if isinstance(dims, JointDims | DividedDims) else (1, 8)
    return Sampling(
        frames,
        units,
        window_s,
        stride_s=window_s,
        min_window_s=window_s / 4,
        max_window_s=window_s * 4,
        position="middle" if isinstance(dims, ViTDims) else "start",
    )


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename transformers' parameters to tubelet's, q, k and v joined in one matrix; values do not change."""
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"^embeddings\.(cls_token|time_embeddings)$", r"\1", name)
        name = re.sub(r"^embeddings\.position_embeddings$", "pos_embed", name)
        if found := _QKV.match(name):
            parts.setdefault(f"{found[1]}.attn.qkv", {})[f"{found[2]}.{found[3]}"] = value
        else:
            renamed[name] = value
    for name, each in parts.items():
        weights = [_part(each, name, f"{part}.weight") for part in ("query", "key", "value")]
        renamed[f"{name}.weight"] = torch.cat(weights)
        # A missing bias is zero.
        zero = torch.zeros(len(weights[0]))
        renamed[f"{name}.bias"] = torch.cat(
            [each.get(f"{part}.bias", zero) for part in ("query", "key", "value")]
        )
    return renamed


def _part(parts: dict[str, Tensor], name: str, part: str) -> Tensor:
    """Return the parameter ``part`` (q, k or v) of the attention ``name``.

    Raises:
        CannotImport: the checkpoint does not have it.
    """
    if part not in parts:
        raise CannotImport(f"the checkpoint has no {part} for {name}")
    return parts[part]


def _with_prefix(state: dict[str, Tensor], encoder: str) -> dict[str, Tensor]:
    """Put the name ``encoder`` before the names of the encoder's parameters."""
    own = r"^(cls_token|pos_embed|blocks\.|norm\.|fc_norm\.)"
    return {re.sub(own, rf"{encoder}.\1", name): value for name, value in state.items()}
