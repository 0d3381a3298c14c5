"""Import a checkpoint: read a source, check it, and write it as a model's folder in the store."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version as installed_version
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from tubelet.models.checkpoints.efficientnet_lite import SOURCE as EFFICIENTNET_LITE
from tubelet.models.checkpoints.efficientnet_lite import read_efficientnet_lite
from tubelet.models.checkpoints.foreign_checkpoint import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ForeignCheckpoint,
    explain_import_errors,
    read_json,
    read_tensors,
    require_memory,
)
from tubelet.models.checkpoints.huggingface import fetch_from_hub, read_hf
from tubelet.models.checkpoints.labels import clean_labels
from tubelet.models.checkpoints.scenic import is_messagepack_map, read_scenic
from tubelet.models.checkpoints.state_dict import ATTRIBUTES
from tubelet.models.checkpoints.timm import from_timm, read_timm
from tubelet.models.checkpoints.torchvision import (
    frame_sampling,
    from_torchvision,
    read_torchvision,
    vit_dims,
)
from tubelet.models.errors import BrokenModel, CannotImport
from tubelet.models.families.huggingface import HfDims
from tubelet.models.families.layers import patch_sides
from tubelet.models.families.registry import build_model, build_on_meta, describe_mismatch, family_of
from tubelet.models.families.torchvision import TorchvisionDims
from tubelet.models.families.vit import ViTDims
from tubelet.models.repository.model_folder import SPEC, write_folder
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.spec import Family, ModelSpec, Preprocessing, Provenance
from tubelet.models.video_model import VideoModel

_ZOO_NAMES = "NAME is an architecture such as r3d_18, mvit_v2_s or resnet50"
_MEMORY_PER_WEIGHT_BYTES = 8  # the checkpoint and the model, both in float32


def read_source(
    source: str,
    window_s: float | None = None,
    *,
    labels: tuple[str, ...] | None = None,
    weights: Path | None = None,
) -> ForeignCheckpoint:
    """Read the checkpoint ``source``.

    It is hf:ORG/NAME[@REVISION], torchvision:NAME[:WEIGHTS], efficientnet-lite0, a folder or a file.
    ``window_s`` is the time that a window spans, None: as the checkpoint was trained. ``labels`` replace the
    source's. ``weights`` is the state dict of a model that was fine-tuned from torchvision:NAME.

    Raises:
        CannotImport: the source is not available or not supported; the message says what to do.
    """
    with explain_import_errors(source):
        foreign = _read(source, window_s, weights)
    found, warnings = clean_labels(foreign.labels if labels is None else labels)
    return replace(foreign, labels=found, warnings=(*foreign.warnings, *warnings))


def _read(source: str, window_s: float | None, weights: Path | None) -> ForeignCheckpoint:
    """Read ``source`` by the importer for its kind."""
    kind, _, rest = source.partition(":")
    if weights is not None and kind != "torchvision":
        raise CannotImport(f"--weights goes with torchvision:NAME, not with {source}; {_ZOO_NAMES}")
    if source == EFFICIENTNET_LITE:
        return _stamped(read_efficientnet_lite(window_s))
    if kind == "hf":
        name, _, revision = rest.partition("@")
        folder, commit = fetch_from_hub(name, revision)
        return _read_folder(folder, Provenance(source, commit, _own_version()), window_s)
    if kind == "torchvision":
        name, _, weights_name = rest.partition(":")
        return _stamped(read_torchvision(name, weights_name, window_s, weights))
    path = Path(source)
    provenance = Provenance(source, imported_by=_own_version())
    if path.is_dir():
        return _read_folder(path, provenance, window_s)
    if not path.is_file():
        raise CannotImport(
            f"{source} is neither a folder nor a file, hf:ORG/NAME[@REVISION], torchvision:NAME[:WEIGHTS] or "
            f"{EFFICIENTNET_LITE}"
        )
    if path.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        return _read_state_dict(path, provenance, window_s)
    if not is_messagepack_map(path):
        raise CannotImport(
            f"{source} is not a checkpoint: that is a folder with config.json, a file in .pth, .pt, .bin or "
            ".safetensors, or a MessagePack file of Flax"
        )
    return read_scenic(path, provenance, window_s)


def store_model(
    foreign: ForeignCheckpoint, root: Path, name: str, version: str, *, overwrite: bool = False
) -> Path:
    """Check that a checkpoint fills its model, write it to ROOT/NAME/VERSION, and return that folder.

    Raises:
        CannotImport: the version exists (without ``overwrite``), an embedded model has the name, too little
            memory is free, the labels do not fit the logits, or a parameter is missing, unexpected, not
            finite or of another shape.
    """
    folder = root / name / version
    if name in {spec.name for spec in ModelStore(ZOO).specs()}:
        raise CannotImport(
            f"{name} is the name of an embedded model, which it would replace: choose another name"
        )
    if folder.exists() and not overwrite:
        raise CannotImport(
            f"{name} {version} is already in the store: choose another version, or give --replace"
        )
    needed = _MEMORY_PER_WEIGHT_BYTES * sum(value.numel() for value in foreign.state.values())
    require_memory(needed, "the model")
    _check_head(foreign)
    classes = _num_classes(foreign)
    if len(foreign.labels) != classes:
        count = len(foreign.labels)
        has = f"there {'is' if count == 1 else 'are'} {count or 'no'} label{'' if count == 1 else 's'}"
        why = f": {foreign.label_problem}" if foreign.label_problem and not foreign.labels else ""
        raise CannotImport(f"the model has {classes} logits, but {has}{why}; see --labels")
    if classes == 1 and foreign.activation == "softmax":
        raise CannotImport(
            "the model has one logit, whose softmax is 1 for every video; if it was trained with a sigmoid, "
            "give --activation sigmoid"
        )
    with explain_import_errors("the checkpoint"):
        outline = build_on_meta(foreign.dims, foreign.preprocessing, classes)
        _check_parameters(outline, foreign.state, family_of(foreign.dims))
        model = build_model(foreign.dims, foreign.preprocessing, classes).eval()
        model.load_state_dict(_counters(model) | dict(foreign.state))
    try:
        spec = ModelSpec(
            name=name,
            version=version,
            family=family_of(foreign.dims),
            description=foreign.description,
            licence=foreign.licence,
            labels=foreign.labels,
            sampling=foreign.sampling,
            preprocessing=foreign.preprocessing,
            accuracy=foreign.accuracy,
            provenance=foreign.provenance,
            activation=foreign.activation,
        )
    except ValueError as error:
        raise CannotImport(str(error)) from error
    try:
        write_folder(folder, spec, foreign.dims, model, _card(spec), overwrite=overwrite)
    except (OSError, SafetensorError, ValueError, BrokenModel) as error:
        raise CannotImport(f"{folder} cannot be written: {error}; see models.store") from error
    return folder


def default_name(source: str) -> str:
    """Derive a model's name from its source: hf:google/vivit-b@main becomes vivit-b."""
    last = re.split(r"[/:]", source.partition("@")[0].rstrip("/"))
    name = last[1] if source.startswith("torchvision:") else Path(last[-1]).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._").lower() or "model"


def _read_folder(folder: Path, provenance: Provenance, window_s: float | None) -> ForeignCheckpoint:
    """Read a folder of transformers or timm."""
    if (folder / SPEC).is_file():
        raise CannotImport(
            f"{folder} is already a model of tubelet: copy it into the store, see models.store"
        )
    if not (folder / "config.json").is_file():
        raise CannotImport(f"{folder} does not hold a checkpoint: it has no config.json")
    if "pretrained_cfg" in read_json(folder / "config.json"):
        return read_timm(folder, provenance, window_s)
    return read_hf(folder, provenance, window_s)


def _read_state_dict(file: Path, provenance: Provenance, window_s: float | None) -> ForeignCheckpoint:
    """Read the state dict of an image ViT; the number of its position embeddings gives the picture's size."""
    state = read_tensors(file, ATTRIBUTES)
    if "conv_proj.weight" in state:
        library, state, mean, std = "torchvision", from_torchvision(state), IMAGENET_MEAN, IMAGENET_STD
    elif "patch_embed.proj.weight" in state and "blocks.0.attn.qkv.weight" in state:
        half = (0.5, 0.5, 0.5)
        library, state, mean, std = "timm", from_timm(state), half, half
    else:
        some = ", ".join(list(state)[:3])
        raise CannotImport(
            f"{file} is not a state dict of torchvision's or timm's ViT (it starts with {some}). Another "
            f"model of torchvision's is imported as torchvision:NAME --weights {file}; {_ZOO_NAMES}. All "
            "others come as a folder with config.json"
        )
    dims = vit_dims(state)
    p, q = patch_sides(dims.patch_size)
    patches = state["spatial.pos_embed"].shape[1] - 1
    if p != q or math.isqrt(patches) ** 2 != patches:
        raise CannotImport(
            f"{file} has {patches} patches of {p} x {q} pixels, which do not make a square picture: its "
            "height and width are unknown; in transformers' format, its config.json has them"
        )
    side = math.isqrt(patches) * p
    margin = round(side / 0.875)
    return ForeignCheckpoint(
        dims=dims,
        preprocessing=Preprocessing(
            side, side, "crop", mean, std, margin, margin, "bilinear", crop_rounding="half_even"
        ),
        sampling=frame_sampling(window_s),
        labels=(),
        state=state,
        description=f"A ViT from a state dict of {library}'s; its mean and std are {library}'s usual ones.",
        licence="unknown",
        provenance=provenance,
        warnings=(
            f"{file.name} does not say how pictures are prepared: mean {mean[0]:g}, std {std[0]:g} (red), "
            f"bilinear, {side} of {margin} pixels are assumed. If it was trained otherwise, as DeiT with "
            "ImageNet's mean and std, import a folder with config.json",
        ),
    )


def _check_head(foreign: ForeignCheckpoint) -> None:
    """Refuse a backbone without a head; ``torchvision`` and ``hf`` models were checked before.

    Raises:
        CannotImport: there is no head.
    """
    if isinstance(foreign.dims, TorchvisionDims | HfDims):
        return
    if any(name.startswith("head.") for name in foreign.state):
        return
    if isinstance(foreign.dims, ViTDims):
        raise CannotImport(
            "the checkpoint has no head, it is a backbone: --inflate-to factorised --labels FILE starts a "
            "video model with it, to be trained"
        )
    raise CannotImport("the checkpoint has no head, it is a backbone: import it once it is fine-tuned")


def _num_classes(foreign: ForeignCheckpoint) -> int:
    """Count the logits of a checkpoint, by its head's bias, else by ``num_classes``, else by its labels."""
    for name in ("head.bias", "head.fc2.bias"):
        if name in foreign.state:
            return len(foreign.state[name])
    return len(foreign.labels) if foreign.num_classes is None else foreign.num_classes


def _counters(model: VideoModel) -> dict[str, Tensor]:
    """Return a model's batch norm counters, which older checkpoints lack and inference does not use."""
    return {
        name: value for name, value in model.state_dict().items() if name.endswith(".num_batches_tracked")
    }


def _check_parameters(outline: VideoModel, state: Mapping[str, Tensor], family: Family) -> None:
    """Check that the parameters ``state`` fill ``outline``, a model without weights.

    Raises:
        CannotImport: a parameter is missing, unexpected, not finite or of another shape.
    """
    shapes = {name: tuple(value.shape) for name, value in (_counters(outline) | dict(state)).items()}
    if problem := describe_mismatch(outline, shapes):
        raise CannotImport(f"the checkpoint does not fill a {family} model: {problem}")
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CannotImport(f"{name} holds numbers that are not finite")


def _card(spec: ModelSpec) -> str:
    """Return the text of an imported model's CARD.md."""
    assert spec.provenance is not None
    lines = [
        f"# {spec.name} {spec.version}",
        "",
        spec.description,
        "",
        f"- Source: `{spec.provenance.source}` {spec.provenance.revision}".rstrip(),
        f"- Licence: {spec.licence}",
        f"- Family: {spec.family}; {len(spec.labels)} labels, scored by {spec.activation}",
        f"- A window: {spec.sampling.frames_per_window} frames over {spec.sampling.window_s:g} s",
        *(f"- Accuracy on {each.dataset}: {each.top1:.4f} ({each.note})" for each in spec.accuracy),
        "",
        "The source's own card says on what data it was trained, and what it must not be used for.",
    ]
    return "\n".join(lines) + "\n"


def _stamped(foreign: ForeignCheckpoint) -> ForeignCheckpoint:
    """Return ``foreign`` with tubelet's version in its provenance."""
    return replace(foreign, provenance=replace(foreign.provenance, imported_by=_own_version()))


def _own_version() -> str:
    """Return "tubelet" and its version, for the provenance."""
    return f"tubelet {installed_version('tubelet')}"
