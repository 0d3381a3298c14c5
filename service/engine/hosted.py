"""A loaded model on a device: how a batch of its units or windows is gathered, copied and computed.

N units in a batch, B windows, S units in a window, t frames in a unit, H W C pixels,
D embedding width, K classes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from models.contract import ModelSpec, VideoModel
from service.engine.lane import Lane
from service.values import UnitFrames

Embedding = Tensor  # (D,), stays on the device
Logits = np.ndarray  # (K,) float32


class HostedModel:
    """One model on one device, with a lane for each of its stages.

    ``release`` receives the units of a batch as soon as their pixels are copied; it is called on the
    executor's thread.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: VideoModel,
        *,
        device: torch.device,
        dtype: torch.dtype,
        max_batch_units: int,
        max_batch_windows: int,
        release: Callable[[Sequence[UnitFrames]], None],
    ) -> None:
        self.spec = spec
        self.device = device
        self.dtype = dtype
        self.encode = Lane(spec.name, "encode", max_batch_units, self._encode)
        self.classify = Lane(spec.name, "classify", max_batch_windows, self._classify)
        self._model = model
        self._release = release
        size = spec.preprocessing
        # Page-locked memory lets the copy to a GPU run without the processor.
        self._staging = torch.empty(
            (max_batch_units, spec.sampling.frames_per_unit, size.height, size.width, 3),
            dtype=torch.uint8,
            pin_memory=device.type == "cuda",
        )

    @torch.inference_mode()
    def _encode(self, units: Sequence[UnitFrames]) -> Sequence[Embedding]:
        """N units of (t, H, W, C) -> N embeddings of (D,)."""
        staged = self._staging[: len(units)]
        np.stack([unit.pixels for unit in units], out=staged.numpy())
        self._release(units)
        embeddings = self._model.encode(staged.to(self.device, non_blocking=True))
        if self.device.type == "cuda":
            # The staging memory is written again for the next batch.
            torch.cuda.current_stream(self.device).synchronize()
        return embeddings.unbind()

    @torch.inference_mode()
    def _classify(self, windows: Sequence[Sequence[Embedding]]) -> Sequence[Logits]:
        """B windows of S embeddings of (D,) -> B logits of (K,)."""
        batch = torch.stack([torch.stack(list(window)) for window in windows])
        return list(self._model.classify(batch).float().cpu().numpy())
