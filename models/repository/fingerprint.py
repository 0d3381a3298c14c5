"""A few logits of a fixed clip: they tell whether a model computes today what it did when it was written."""

import torch

from tubelet.models.spec import Sampling
from tubelet.models.video_model import VideoModel

MAX_LOGITS = 16
TOLERANCE = 1e-3  # of the largest logit: what summing in another order may change in float32
_SEED = 2103_15691


@torch.inference_mode()
def fingerprint(model: VideoModel, sampling: Sampling) -> tuple[float, ...]:
    """The first logits, at most 16, of one window of smooth coloured noise that is the same everywhere.

    The model is one in float32 on the CPU, in eval mode.
    """
    generator = torch.Generator().manual_seed(_SEED)
    t, s = sampling.frames_per_unit, sampling.units_per_window
    size = model.preprocessing
    coarse = torch.rand(s * t, 3, 6, 6, generator=generator)
    frames = torch.nn.functional.interpolate(coarse, (size.height, size.width), mode="bilinear")
    units = (frames.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).unflatten(0, (s, t))
    logits = model.classify(model.encode(units)[None])[0]
    return tuple(round(value, 6) for value in logits[:MAX_LOGITS].tolist())


def differs(found: tuple[float, ...], wanted: tuple[float, ...]) -> float:
    """How far two fingerprints are apart, as a share of the largest logit; infinite for different lengths."""
    if len(found) != len(wanted):
        return float("inf")
    scale = max(1e-6, *(abs(value) for value in wanted))
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) / scale
