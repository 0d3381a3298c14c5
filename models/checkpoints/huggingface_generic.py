"""Import transformers' other video classifiers, those that no family of tubelet can hold: family ``hf``."""

import json
from pathlib import Path
from typing import Any

import torch

from tubelet.models.checkpoints.foreign_checkpoint import (
    ForeignCheckpoint,
    one_line,
    read_folder_tensors,
    require_memory,
)
from tubelet.models.checkpoints.huggingface_config import (
    both_sides,
    read_activation,
    read_id2label,
    read_licence,
    read_preprocessing,
)
from tubelet.models.errors import CannotImport, MissingExtra
from tubelet.models.families.huggingface import HfDims, transformers, trusted_config
from tubelet.models.spec import Provenance, Sampling

# Keys of configs: the first that a config has counts.
_FRAME_KEYS = ("num_frames", "frames_per_clip")
_SIZE_KEYS = ("image_size", "crop_size")
_FRAMES_PER_SECOND = 7.5  # every fourth frame of 30 Hz, as VideoMAE; configs do not state a rate


def read_through_transformers(
    folder: Path, config: dict[str, Any], provenance: Provenance, window_s: float | None
) -> ForeignCheckpoint:
    """Read a checkpoint of any model type for which transformers has a video classifier.

    Raises:
        CannotImport: there is no such classifier, the weights do not fill it, or transformers is missing.
    """
    kind = config.get("model_type", "")
    try:
        library = transformers()
    except MissingExtra as error:
        raise CannotImport(
            f"a checkpoint of model type {kind!r} needs a library that is not installed: {error}"
        ) from error
    supported = sorted(
        {"vit", *library.models.auto.modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES}
    )
    if kind not in supported:
        raise CannotImport(
            f"{folder / 'config.json'} is of model type {kind!r}; supported are {', '.join(supported)}"
        )
    activation = read_activation(config)
    try:
        own = trusted_config(config)
    except Exception as error:  # transformers may raise anything on a bad config
        raise CannotImport(f"transformers cannot load {folder}: {one_line(error)}") from error
    frames = int(_first(own, _FRAME_KEYS, folder))
    size = both_sides(_first(own, _SIZE_KEYS, folder), "the picture's size")
    state = read_folder_tensors(folder)
    try:
        with torch.device("meta"):
            outline = library.AutoModelForVideoClassification.from_config(own, dtype=torch.float32)
        # transformers also allocates parameters that the checkpoint lacks.
        require_memory(sum(each.nbytes for each in outline.parameters()), f"the model of {folder}")
        net, report = type(outline).from_pretrained(
            None,
            config=own,
            state_dict=state,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
            dtype=torch.float32,
        )
    except CannotImport:
        raise
    except Exception as error:  # whatever its code meets in a config or a file that is damaged
        raise CannotImport(f"transformers cannot load {folder}: {one_line(error)}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report.get(problem):
            some = ", ".join(map(str, sorted(report[problem])[:3]))
            if problem == "missing_keys" and "classifier.weight" in report[problem]:
                raise CannotImport(
                    f"the checkpoint has no head ({some}), it is a backbone: import it once it is fine-tuned"
                )
            raise CannotImport(f"the checkpoint does not fill {type(net).__name__}: {problem}: {some}")
    window = window_s or frames / _FRAMES_PER_SECOND
    labels, problem = read_id2label(config)
    return ForeignCheckpoint(
        dims=HfDims(json.dumps(net.config.to_diff_dict() | {"model_type": kind}), frames),
        preprocessing=read_preprocessing(folder, kind, size),
        sampling=Sampling(frames, 1, window, window, window / 4, window * 4, "start"),
        labels=labels,
        label_problem=problem,
        activation=activation,
        state={f"net.{name}": value for name, value in net.state_dict().items()},
        description=f"{type(net).__name__}, run through transformers.",
        licence=read_licence(folder),
        provenance=provenance,
    )


def _first(config: Any, keys: tuple[str, ...], folder: Path) -> Any:
    """Return the value of the first of ``keys`` that transformers' config has.

    Raises:
        CannotImport: it has none of them.
    """
    found = [value for key in keys if (value := getattr(config, key, None)) is not None]
    if not found:
        raise CannotImport(f"{folder / 'config.json'} has none of {', '.join(keys)}")
    return found[0]
