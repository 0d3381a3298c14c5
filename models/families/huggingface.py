"""The ``hf`` family: video classifiers that run through transformers, such as V-JEPA 2 and VideoPrism.

N units in a batch, t frames in a unit, H W C pixels, D embedding width.
"""

import json
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from tubelet.models.errors import MissingExtra
from tubelet.models.families.deferred_head import defer_layer
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import AveragingModel

# Keys of a config that name other code, on the hub or installed here, which transformers would fetch or call.
_CODE_KEYS = frozenset(
    {
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
        "auto_map",
        "quantization_config",
    }
)


@dataclass(frozen=True, slots=True)
class HfDims:
    """``config`` is the checkpoint's config.json in one line; ``frames`` are those of a clip."""

    config: str
    frames: int


class HfModel(AveragingModel):
    """A model of transformers: a unit is a whole view, embedded by the pooled vector before the classifier.

    Raises:
        MissingExtra: transformers is not installed.
    """

    supports_cuda_graphs = False  # the library's code does not promise it

    def __init__(self, dims: HfDims, preprocessing: Preprocessing, num_classes: int) -> None:
        super().__init__(preprocessing)
        config = trusted_config(json.loads(dims.config) | {"num_labels": num_classes})
        library = transformers()
        self.net: Any = library.AutoModelForVideoClassification.from_config(config, dtype=torch.float32)
        self.head = defer_layer(self.net, "classifier")

    def encode(self, units: Tensor) -> Tensor:
        pixels = rearrange(self.normalise(units), "n t h w c -> n t c h w")
        return self.net(**{self.net.main_input_name: pixels}).logits  # the input of the deferred classifier


def trusted_config(config: dict[str, Any]) -> Any:
    """Return transformers' config object for a config.json, without the keys that would run other code.

    Raises:
        MissingExtra: transformers is not installed.
    """
    return transformers().AutoConfig.for_model(**_without_code_keys(config))


def _without_code_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return ``config`` without ``_CODE_KEYS``, in nested tables too."""
    return {
        key: _without_code_keys(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _CODE_KEYS
    }


def transformers() -> Any:
    """Import the transformers library, which takes seconds, only when a model needs it.

    Raises:
        MissingExtra: transformers is not installed.
    """
    try:
        import transformers as library
    except ModuleNotFoundError:
        raise MissingExtra("this model runs through transformers: pip install 'tubelet[hf]'") from None
    return library
