"""The interface between the engine and every model family: encode units, classify windows.

B windows, S units in a window, N units in a batch, t frames in a unit, H W C pixels,
D embedding width, K classes.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from tubelet.models.spec import Preprocessing

CPU_BATCH_TOKENS = 2048
"""Tokens in a batch on a CPU: enough for efficient matrix products, few enough to fit into its caches."""


class VideoModel(nn.Module, ABC):
    """A video classifier in two stages: each unit alone, then the units of a window together.

    ``encode`` treats every unit independently of its batch, so units of any videos may share one;
    ``classify`` does so for windows. Both run in eval mode under ``torch.inference_mode``.
    """

    mean: Tensor
    std: Tensor
    tokens_per_unit = CPU_BATCH_TOKENS
    """Tokens of one unit that attend to each other."""
    supports_cuda_graphs = True
    """Whether a CUDA graph can record ``encode``: it never waits for the device nor branches on values."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std), persistent=False)

    @abstractmethod
    def encode(self, units: Tensor) -> Tensor:
        """Embed units of raw pixels, the spatial stage: (N, t, H, W, C) uint8 -> (N, D)."""

    @abstractmethod
    def classify(self, windows: Tensor) -> Tensor:
        """Classify windows of embeddings, the temporal stage: (B, S, D) -> (B, K) logits."""

    @property
    def cpu_batch_units(self) -> int:
        """The units in a batch of ``CPU_BATCH_TOKENS``; larger batches gain nothing on a CPU."""
        return max(1, CPU_BATCH_TOKENS // self.tokens_per_unit)

    def normalise(self, units: Tensor) -> Tensor:
        """Compute (x / 255 - mean) / std in the weights' dtype: (N, t, H, W, C) uint8 -> the same shape.

        Only the patch embedding may call this: a packed one normalises by itself.
        """
        # In place on a copy, since the pixels of a batch are large to allocate three times. By whole rows,
        # since loops whose innermost dimension is 3 (the colours) take a CPU ten times as long.
        rows = units.to(self.mean.dtype, copy=True).flatten(-2)
        width = units.shape[-2]
        rows.div_(255).sub_(self.mean.repeat(width)).div_(self.std.repeat(width))
        return rows.unflatten(-1, (width, -1))

    def forward(self, clips: Tensor) -> Tensor:
        """Classify whole windows, as in training: (B, S, t, H, W, C) uint8 -> (B, K) logits."""
        embeddings = self.encode(clips.flatten(0, 1))
        return self.classify(embeddings.unflatten(0, clips.shape[:2]))
