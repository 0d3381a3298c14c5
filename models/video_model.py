"""The interface between the engine and every model family: embed units, pool windows, map vectors to logits.

B windows, S units in a window, N units in a batch, t frames in a unit, H W C pixels,
D width of a unit's embedding, E width of a window's vector, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tubelet.models.spec import Preprocessing

CPU_BATCH_TOKENS = 2048
"""Tokens in a batch on a CPU: enough for efficient matrix products, few enough to fit into its caches."""


class VideoModel(nn.Module, ABC):
    """A video classifier in three steps: embed each unit, pool the units of a window, classify its vector.

    ``encode`` treats every unit independently of its batch, so units of any videos may share one; ``pool``,
    ``head`` and ``classify`` do so for windows. All run in eval mode under ``torch.inference_mode``.
    """

    mean: Tensor
    std: Tensor
    head: Callable[[Tensor], Tensor]
    """The classification head, a module or a function: (..., E) -> (..., K) logits."""
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
        """Embed units of raw pixels, the spatial stage: (N, t, H, W, C) uint8 -> (N, D), before the head."""

    @abstractmethod
    def pool(self, windows: Tensor) -> Tensor:
        """Compute the vector of each window from its units' embeddings: (B, S, D) -> (B, E)."""

    def classify(self, windows: Tensor) -> Tensor:
        """Classify windows of embeddings, the temporal stage: (B, S, D) -> (B, K) logits."""
        return self.head(self.pool(windows))

    def pool_and_classify(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both the vectors and the logits of windows: (B, S, D) -> (B, E), (B, K)."""
        vectors = self.pool(windows)
        return vectors, self.head(vectors)

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


class AveragingModel(VideoModel):
    """A model that classifies units one by one: a window's logits are the mean of theirs, and E = D.

    The head comes before the mean. After it, a head of one linear layer would give the same logits, to
    rounding; a head with an activation would not.
    """

    def pool(self, windows: Tensor) -> Tensor:
        return windows.mean(dim=1)

    def classify(self, windows: Tensor) -> Tensor:
        return self.head(windows).mean(dim=1)

    def pool_and_classify(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        return self.pool(windows), self.classify(windows)
