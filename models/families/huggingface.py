"""Whatever else transformers loads as a video classifier (V-JEPA 2, VideoPrism), behind the contract.

B windows, S units in a window, N units in a batch, t frames in a unit, H W C pixels, K classes.
"""

import json
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from tubelet.models.errors import MissingExtra
from tubelet.models.spec import Preprocessing
from tubelet.models.video_model import VideoModel

# They name code of others, on the hub or installed here, that transformers would fetch or call.
_OTHER_CODE = frozenset(
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
    """``config`` is the checkpoint's config.json in one line; ``frames`` of a clip."""

    config: str
    frames: int


class HfModel(VideoModel):
    """A unit is a whole view of the window, embedded by its logits (D = K), which are averaged.

    Raises:
        MissingExtra: transformers is not installed.
    """

    only_device_work = False  # the library's code promises no such thing

    def __init__(self, dims: HfDims, preprocessing: Preprocessing, num_classes: int) -> None:
        super().__init__(preprocessing)
        config = own_config(json.loads(dims.config) | {"num_labels": num_classes})
        library = transformers()
        self.net: Any = library.AutoModelForVideoClassification.from_config(config, dtype=torch.float32)

    def encode(self, units: Tensor) -> Tensor:
        pixels = rearrange(self.normalise(units), "n t h w c -> n t c h w")
        return self.net(**{self.net.main_input_name: pixels}).logits

    def classify(self, windows: Tensor) -> Tensor:
        return windows.mean(dim=1)


def own_config(config: dict[str, Any]) -> Any:
    """A config.json as transformers' own code takes it, without what would have other code run in its place.

    Raises:
        MissingExtra: transformers is not installed.
    """
    return transformers().AutoConfig.for_model(**_without_other_code(config))


def _without_other_code(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_other_code(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _OTHER_CODE
    }


def transformers() -> Any:
    """The library, which is imported only by those who need it: it takes seconds.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import transformers as library
    except ModuleNotFoundError:
        raise MissingExtra("this model runs through transformers: pip install 'tubelet[hf]'") from None
    return library
