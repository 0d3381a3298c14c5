"""Read the configs in transformers' folders: labels, activation, licence, preprocessing, defaults."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from tubelet.models.checkpoints.foreign_checkpoint import read_json
from tubelet.models.errors import CannotImport
from tubelet.models.spec import OutputActivation, Preprocessing, Resample

_PROBLEM_TYPES: dict[str, OutputActivation] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}


def both_sides(size: Any, key: str) -> tuple[int, int]:
    """Return the (height, width) of a size in a config, which is one number or two; ``key`` is its name.

    Raises:
        CannotImport: ``size`` is neither.
    """
    match size:
        case [int(side)] | int(side):
            return side, side
        case [int(height), int(width)]:
            return height, width
    raise CannotImport(f"{key} in its config is {size!r}, not one number or height and width")


def read_id2label(config: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Read the labels of a config in logit order; if they cannot be used, return none and the reason.

    Placeholders ("LABEL_0") are no labels. A label of several logits gets the logit's number, since labels
    must be distinct: ImageNet has two kinds of crane.
    """
    names = config.get("id2label") or {}
    if not isinstance(names, dict):
        return (
            (),
            f"id2label in its config must be a table of logits and labels, it is a {type(names).__name__}",
        )
    if not all(re.fullmatch(r"\d{1,9}", key) for key in names):
        return (), "id2label in its config has keys that are not numbers of logits"
    by_logit = sorted((int(key), "" if name is None else str(name)) for key, name in names.items())
    if [logit for logit, _ in by_logit] != list(range(len(by_logit))):
        first, last = by_logit[0][0], by_logit[-1][0]
        return (), (
            f"id2label in its config has {len(by_logit)} labels for logits {first} to {last}, but logits are "
            "numbered from 0 on, without gaps"
        )
    labels = [label for _, label in by_logit]
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        return (), ""
    times = Counter(labels)
    numbered = (f"{label} ({logit})" if label and times[label] > 1 else label for logit, label in by_logit)
    return tuple(numbered), ""


def read_activation(config: dict[str, Any]) -> OutputActivation:
    """Read from a config how logits become scores.

    Raises:
        CannotImport: the model is for regression, or ``problem_type`` is unknown.
    """
    problem = config.get("problem_type")
    if problem == "regression":
        raise CannotImport(
            "problem_type in its config is 'regression': the model predicts numbers, not labels"
        )
    if problem not in (None, *_PROBLEM_TYPES):
        raise CannotImport(
            f"problem_type in its config is {problem!r}; supported are {', '.join(_PROBLEM_TYPES)}"
        )
    return _PROBLEM_TYPES[problem or "single_label_classification"]


def read_licence(folder: Path) -> str:
    """Read the licence from the front matter of the model card, README.md; "unknown" if it states none."""
    card = folder / "README.md"
    found = (
        re.search(r"^license:\s*(\S+)", card.read_text("utf-8-sig", "replace"), re.MULTILINE)
        if card.is_file()
        else None
    )
    return found[1] if found else "unknown"


_ENCODER: dict[str, Any] = {
    "image_size": 224,
    "num_channels": 3,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
}
# The defaults of transformers' config classes, by model type.
_MODELS: dict[str, dict[str, Any]] = {
    "vivit": _ENCODER
    | {"num_frames": 32, "tubelet_size": [2, 16, 16], "hidden_act": "gelu_fast", "layer_norm_eps": 1e-6},
    "videomae": _ENCODER
    | {
        "patch_size": 16,
        "num_frames": 16,
        "tubelet_size": 2,
        "layer_norm_eps": 1e-12,
        "use_mean_pooling": True,
    },
    "timesformer": _ENCODER
    | {
        "patch_size": 16,
        "num_frames": 8,
        "layer_norm_eps": 1e-6,
        "attention_type": "divided_space_time",
    },
    "vit": _ENCODER | {"patch_size": 16, "layer_norm_eps": 1e-12},
}
_PROCESSOR: dict[str, Any] = {
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "offset": False,
    "image_mean": 0.5,
    "image_std": 0.5,
    "resample": 2,
}
_IMAGENET: dict[str, Any] = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# The defaults of processors, by the beginning of the class's name; it may be that of another model type.
_PROCESSORS: dict[str, dict[str, Any]] = {
    "Vivit": {"size": {"shortest_edge": 256}, "offset": True, "rescale_factor": 1 / 127.5},
    "VideoMAE": {"size": {"shortest_edge": 224}},
    "TimesformerVideo": {"size": {"shortest_edge": 224}, **_IMAGENET},
    "ViT": {"size": {"height": 224, "width": 224}, "do_center_crop": False},
    "DeiT": {"size": {"height": 256, "width": 256}, "resample": 3},
    "VJEPA2": {"size": {"shortest_edge": 292}, **_IMAGENET},
}
# Model type -> the processor to assume if the config names no known one.
_DEFAULT_PROCESSORS = {
    "vivit": "Vivit",
    "videomae": "VideoMAE",
    "timesformer": "VideoMAE",
    "vit": "ViT",
    "vjepa2": "VJEPA2",
}


def complete_config(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a model's config with the defaults of its model type ``kind``."""
    return _MODELS[kind] | _stated(config)


def complete_processor(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a processor's config with the defaults of its class; ``kind`` is the model's type."""
    named = str(config.get("video_processor_type") or config.get("image_processor_type") or "")
    prefix = next((each for each in _PROCESSORS if named.startswith(each)), _DEFAULT_PROCESSORS.get(kind, ""))
    return _PROCESSOR | _PROCESSORS.get(prefix, {}) | _stated(config)


def _stated(config: dict[str, Any]) -> dict[str, Any]:
    """Return ``config`` without null values, which stand for the default."""
    return {key: value for key, value in config.items() if value is not None}


_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
# Pillow's numbers of filters.
_RESAMPLE: dict[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# Model types whose processors take a single number as the shorter side; all others take it as both sides.
_SHORTER_SIDE_ONLY = ("vivit", "videomae", "timesformer")


def read_preprocessing(folder: Path, kind: str, image_size: tuple[int, int]) -> Preprocessing:
    """Read the preprocessing of a folder; ``image_size`` is the (height, width) of the model's input.

    Raises:
        CannotImport: the folder has no processor's config, or one of another size or with unsupported steps.
    """
    present = [folder / name for name in _FILES if (folder / name).is_file()]
    if not present:
        raise CannotImport(f"{folder} has no {' or '.join(_FILES)}: the preprocessing is unknown")
    config = complete_processor(kind, read_json(present[0]))
    if not config["do_resize"]:
        raise CannotImport(
            f"{present[0]} turns do_resize off: frames of videos must be resized to the model's size"
        )
    height, width = image_size
    if "size" not in config:
        raise CannotImport(f"{present[0]} has no size to resize pictures to")
    rows, columns, stretched = _size(config["size"], kind, present[0])
    if config["do_center_crop"]:
        crop = config.get("crop_size", image_size)
        cut = (crop["height"], crop["width"]) if isinstance(crop, dict) else both_sides(crop, "crop_size")
    else:
        cut = (rows, columns)
    if cut != image_size:
        raise CannotImport(
            f"{present[0]} makes pictures of {cut[0]} x {cut[1]} pixels, the model takes {height} x {width}"
        )
    mean, std = _normalisation(config)
    resample = config["resample"]
    if resample not in _RESAMPLE:
        raise CannotImport(
            f"{present[0]}: resample {resample} is not supported; 0 (nearest), 1 (Lanczos), 2 (bilinear) "
            "and 3 (bicubic) are"
        )
    return Preprocessing(
        height,
        width,
        "stretch" if stretched else "crop",
        mean,
        std,
        resize_height=None if rows == height else rows,
        resize_width=None if columns == width else columns,
        resample=_RESAMPLE[resample],
    )


def _size(size: dict[str, int] | int, kind: str, file: Path) -> tuple[int, int, bool]:
    """Return the (height, width) that pictures are resized to, and whether they are stretched to it."""
    match size:
        case int():
            return size, size, kind not in _SHORTER_SIDE_ONLY
        case {"shortest_edge": edge}:
            return edge, edge, False
        case {"height": height, "width": width}:
            return height, width, True
    raise CannotImport(f"{file}: size {size} is not supported; shortest_edge or height and width are")


def _normalisation(config: dict[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the mean and std, for pixels in 0..1, of (pixel * rescale_factor - offset - mean) / std.

    Steps that the config turns off are skipped.
    """
    is_scaled, is_normalised = config["do_rescale"], config["do_normalize"]
    factor, offset = (config["rescale_factor"], float(config["offset"])) if is_scaled else (1.0, 0.0)
    means = _of_colours(config["image_mean"]) if is_normalised else (0.0, 0.0, 0.0)
    stds = _of_colours(config["image_std"]) if is_normalised else (1.0, 1.0, 1.0)
    r, g, b = ((offset + mean) / (255 * factor) for mean in means)
    u, v, w = (std / (255 * factor) for std in stds)
    return (r, g, b), (u, v, w)


def _of_colours(value: Any) -> tuple[float, float, float]:
    """Return a value for each of R, G, B; a single number counts for all three."""
    r, g, b = value if isinstance(value, list | tuple) else (value, value, value)
    return r, g, b
