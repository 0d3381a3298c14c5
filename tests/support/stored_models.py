"""A tiny ViT for tests of the model repository: its dims, its spec and its weights."""

import torch

from tubelet.models.families.vit import ViT, ViTDims
from tubelet.models.spec import Accuracy, ModelSpec, Preprocessing, Sampling

DIMS = ViTDims(patch_size=8, embed_dim=32, depth=1, num_heads=2, mlp_dim=64)
PREPROCESSING = Preprocessing(16, 24, "stretch", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
SPEC = ModelSpec(
    name="tiny",
    version="1.2.0",
    family="vit",
    description='says "a" or b, \\ or ä',
    licence="MIT",
    labels=("a", "b with space", "ä"),
    sampling=Sampling(1, 4, window_s=2.0, stride_s=0.5, min_window_s=1.0, max_window_s=4.0),
    preprocessing=PREPROCESSING,
    accuracy=(Accuracy("a test set", 0.75, "12 windows"), Accuracy("another", 1.0)),
)


def model(seed: int = 0) -> ViT:
    """Return the tiny model with random weights of this ``seed``."""
    torch.manual_seed(seed)
    return ViT(DIMS, PREPROCESSING, len(SPEC.labels)).eval()
