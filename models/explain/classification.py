"""Classification by the model that explains, block by block, so that others can go first in between.

N units in a batch, S units in a window, t frames in a unit, H W C pixels, D width of an embedding, K classes.
"""

from collections.abc import Generator
from typing import TypeVar

import torch
from torch import Tensor

from tubelet.models.explain.transformer import as_transformer
from tubelet.models.video_model import VideoModel

R = TypeVar("R")
Steps = Generator[None, None, R]
"""A computation that yields before each of its steps, and returns a result."""


@torch.no_grad()
def embedding_steps(model: VideoModel, units: Tensor) -> Steps[Tensor]:
    """Embed units, and yield before each block of a transformer: (N, t, H, W, C) uint8 -> (N, D)."""
    yield
    transformer = as_transformer(model)
    if transformer is None:
        return model.encode(units)
    states = transformer.spatial.embed(units)
    for block in transformer.spatial.blocks:
        yield
        states = block(states)
    return transformer.spatial.vectors(states)


@torch.no_grad()
def logit_steps(model: VideoModel, window: Tensor) -> Steps[Tensor]:
    """Classify a window of embeddings: (S, D) -> (K,) float32."""
    yield
    return model.classify(window[None])[0].float()
