"""transformers' processor configs: resize, crop, rescale and normalise in our words."""

from pathlib import Path
from typing import Any

from models.checkpoints.foreign import CannotImport, read_json
from models.checkpoints.hf_defaults import complete_processor
from models.checkpoints.hf_folder import both_sides
from models.contract import Preprocessing, Resample

_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
# PIL's numbers for filters.
_RESAMPLE: dict[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# The processors that take a single number for the shorter side; for all others it is both sides.
_EDGE_ALONE = ("vivit", "videomae", "timesformer")


def read_preprocessing(folder: Path, kind: str, image_size: tuple[int, int]) -> Preprocessing:
    """The processor's config of a model type; ``image_size`` (height, width) is what the model takes.

    Raises:
        CannotImport: there is none, or it makes pictures of another size or in a way that is not supported.
    """
    present = [folder / name for name in _FILES if (folder / name).is_file()]
    if not present:
        raise CannotImport(f"{folder} has no {' or '.join(_FILES)}: how pixels are prepared is not known")
    config = complete_processor(kind, read_json(present[0]))
    if not config["do_resize"]:
        raise CannotImport(f"{present[0]} turns do_resize off: videos come in any size, the model takes one")
    height, width = image_size
    if "size" not in config:
        raise CannotImport(f"{present[0]} does not say to which size pictures are brought")
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
    """(height, width) that pictures cover or are stretched to, and whether they are stretched."""
    match size:
        case int():
            return size, size, kind not in _EDGE_ALONE
        case {"shortest_edge": edge}:
            return edge, edge, False
        case {"height": height, "width": width}:
            return height, width, True
    raise CannotImport(f"{file}: size {size} is not supported; shortest_edge or height and width are")


def _normalisation(config: dict[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """mean and std of pixels in 0..1 that stand for (pixel * rescale_factor - offset - mean) / std.

    Steps that are turned off are left out.
    """
    is_scaled, is_normalised = config["do_rescale"], config["do_normalize"]
    factor, offset = (config["rescale_factor"], float(config["offset"])) if is_scaled else (1.0, 0.0)
    means = _of_colours(config["image_mean"]) if is_normalised else (0.0, 0.0, 0.0)
    stds = _of_colours(config["image_std"]) if is_normalised else (1.0, 1.0, 1.0)
    r, g, b = ((offset + mean) / (255 * factor) for mean in means)
    u, v, w = (std / (255 * factor) for std in stds)
    return (r, g, b), (u, v, w)


def _of_colours(value: Any) -> tuple[float, float, float]:
    """One number stands for all three colours."""
    r, g, b = value if isinstance(value, list | tuple) else (value, value, value)
    return r, g, b
