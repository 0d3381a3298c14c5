"""Small models to explain, their specs, and windows of random pixels for them."""

import torch
from torch import Tensor

from tests.support.models import CASES, CLASSES, PREPROCESSING, build, random_units
from tubelet.models.spec import ModelSpec, Sampling
from tubelet.models.video_model import VideoModel

LABELS = tuple(f"label {number}" for number in range(CLASSES))
TRANSFORMERS = ("vit", "factorised", "channel_stack", "joint", "joint, mean", "divided")
GRIDS = {  # steps in a window, rows, columns
    "vit": (6, 2, 2),
    "factorised": (4, 4, 2),
    "channel_stack": (3, 4, 4),
    "joint": (4, 4, 4),
    "joint, mean": (4, 4, 4),
    "divided": (8, 4, 4),
    "framewise": (4, 7, 7),
    "r2plus1d": (8, 7, 7),
    "torchvision, frames": (3, 7, 7),
    "torchvision, clips": (8, 7, 7),
}


def explained(case: str, strength: float = 2.0) -> tuple[VideoModel, ModelSpec]:
    """Return a model whose attention is far from uniform, and its spec."""
    model = build(case).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "qkv" in name:
            parameter.mul_(strength)
    t, s, _ = CASES[case]
    sampling = Sampling(t, s, window_s=1, stride_s=1, min_window_s=1, max_window_s=1)
    family = case.partition(",")[0]
    return model, ModelSpec("small", "1", family, "", "none", LABELS, sampling, PREPROCESSING)


def random_window(case: str, seed: int = 7) -> Tensor:
    """Return the units of a window: (S, t, H, W, C)."""
    torch.manual_seed(seed)
    t, s, _ = CASES[case]
    return random_units(s, t)
