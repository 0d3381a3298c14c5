"""The fingerprint of a model; logits of a fixed clip, which show whether it still computes the same.

S units in a window, t frames in a unit, H W C pixels.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tubelet.models.spec import Preprocessing, Sampling
from tubelet.models.video_model import VideoModel

MAX_LOGITS = 16
"""Logits of the fixed clip that are kept, at most."""
TOLERANCE = 1e-3
"""Allowed ``relative_difference``: summing in another order may change float32 logits by as much."""
_SEED = 2103_15691
_COMPUTED_FROM = ("family", "activation", "dims", "sampling", "preprocessing", "sha256")
_DIGITS = 16  # hexadecimal, of the 64 that a SHA-256 has


def fingerprint(content: Mapping[str, Any]) -> str:
    """Return the fingerprint of the model with this ``content`` of model.toml: 16 hexadecimal digits.

    It is a hash of all that decides what the model computes: weights, labels, sizes, sampling, preprocessing.
    So it is the same wherever the folder is copied, under any name, version or description.
    """
    decisive = {key: content[key] for key in _COMPUTED_FROM if key in content}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:_DIGITS]


def fixed_clip(size: Preprocessing, sampling: Sampling) -> Tensor:
    """Return one window of smooth coloured noise, always the same: (S, t, H, W, C) uint8."""
    generator = torch.Generator().manual_seed(_SEED)
    t, s = sampling.frames_per_unit, sampling.units_per_window
    coarse = torch.rand(s * t, 3, 6, 6, generator=generator)
    frames = torch.nn.functional.interpolate(coarse, (size.height, size.width), mode="bilinear")
    return (frames.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).unflatten(0, (s, t))


@torch.inference_mode()
def fixed_clip_logits(model: VideoModel, sampling: Sampling) -> tuple[float, ...]:
    """Compute the first ``MAX_LOGITS`` logits of the fixed clip.

    ``model`` must be in float32, on the CPU, in eval mode.
    """
    units = fixed_clip(model.preprocessing, sampling)
    logits = model.classify(model.encode(units)[None])[0]
    return tuple(round(value, 6) for value in logits[:MAX_LOGITS].tolist())


def relative_difference(found: tuple[float, ...], wanted: tuple[float, ...]) -> float:
    """Return the largest difference of the logits ``found`` as a share of the largest logit of ``wanted``.

    It is infinite where their numbers differ, or where a logit is no number.
    """
    if len(found) != len(wanted):
        return math.inf
    scale = max(1e-6, *(abs(value) for value in wanted))
    apart = [abs(a - b) / scale for a, b in zip(found, wanted, strict=True)]
    return math.inf if any(map(math.isnan, apart)) else max(apart)
