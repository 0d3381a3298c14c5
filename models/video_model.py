"""What the engine needs to know of a model, and nothing else.

B windows, S units in a window, N units in a batch, t frames in a unit, H W C pixels,
D embedding width, K classes.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from tubelet.models.spec import Preprocessing

CPU_BATCH_TOKENS = 2048
"""Tokens of a batch on a CPU: matrices are large enough by then, and still small enough for its caches."""


class VideoModel(nn.Module, ABC):
    """A video classifier in two stages: each unit alone, then the units of a window together.

    ``encode`` treats every unit independently of its batch, so units of any videos may share one;
    ``classify`` does so for windows. Both run in eval mode under ``torch.inference_mode``.
    """

    mean: Tensor
    std: Tensor
    tokens_per_unit = CPU_BATCH_TOKENS
    """How many tokens attend to each other in one unit."""
    only_device_work = True
    """Whether ``encode`` neither waits for its device nor chooses by values: what a CUDA graph can hold."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std), persistent=False)

    @abstractmethod
    def encode(self, units: Tensor) -> Tensor:
        """The spatial stage, from raw pixels: (N, t, H, W, C) uint8 -> (N, D)."""

    @abstractmethod
    def classify(self, windows: Tensor) -> Tensor:
        """The temporal stage: (B, S, D) -> (B, K) logits."""

    @property
    def cpu_batch_units(self) -> int:
        """The units of a batch that keeps a processor busy and its caches warm; larger ones gain nothing."""
        return max(1, CPU_BATCH_TOKENS // self.tokens_per_unit)

    def normalise(self, units: Tensor) -> Tensor:
        """(N, t, H, W, C) uint8 -> the same shape in the weights' dtype, (x / 255 - mean) / std.

        For the layer that embeds patches alone: one that is packed does this itself.
        """
        # In place on a copy: the pixels of a batch are too many to allocate them three times over. By rows of
        # colours: walks whose innermost dimension is three long take a processor ten times as long.
        rows = units.to(self.mean.dtype, copy=True).flatten(-2)
        width = units.shape[-2]
        rows.div_(255).sub_(self.mean.repeat(width)).div_(self.std.repeat(width))
        return rows.unflatten(-1, (width, -1))

    def forward(self, clips: Tensor) -> Tensor:
        """Whole windows at once, as training sees them: (B, S, t, H, W, C) uint8 -> (B, K) logits."""
        embeddings = self.encode(clips.flatten(0, 1))
        return self.classify(embeddings.unflatten(0, clips.shape[:2]))
