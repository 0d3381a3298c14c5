"""The fingerprint of a model: a few logits of a fixed clip, which show whether it still computes the same."""

import torch

from tubelet.models.spec import Sampling
from tubelet.models.video_model import VideoModel

MAX_LOGITS = 16
"""Logits in a fingerprint, at most."""
TOLERANCE = 1e-3
"""Allowed ``relative_difference``: summing in another order may change float32 logits by as much."""
_SEED = 2103_15691


@torch.inference_mode()
def fingerprint(model: VideoModel, sampling: Sampling) -> tuple[float, ...]:
    """Compute the first ``MAX_LOGITS`` logits of one window of smooth coloured noise, always the same.

    ``model`` must be in float32, on the CPU, in eval mode.
    """
    generator = torch.Generator().manual_seed(_SEED)
    t, s = sampling.frames_per_unit, sampling.units_per_window
    size = model.preprocessing
    coarse = torch.rand(s * t, 3, 6, 6, generator=generator)
    frames = torch.nn.functional.interpolate(coarse, (size.height, size.width), mode="bilinear")
    units = (frames.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).unflatten(0, (s, t))
    logits = model.classify(model.encode(units)[None])[0]
    return tuple(round(value, 6) for value in logits[:MAX_LOGITS].tolist())


def relative_difference(found: tuple[float, ...], wanted: tuple[float, ...]) -> float:
    """Return the largest difference of two fingerprints as a share of the largest logit of ``wanted``.

    It is infinite for fingerprints of different lengths.
    """
    if len(found) != len(wanted):
        return float("inf")
    scale = max(1e-6, *(abs(value) for value in wanted))
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) / scale
