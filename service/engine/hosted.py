"""A loaded model on a device: how a batch of its units or windows is gathered, copied and computed.

N units in a batch, B windows, S units in a window, t frames in a unit, H W C pixels,
D embedding width, K classes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

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
        precision: str,
        max_batch_units: int,
        max_batch_windows: int,
        release: Callable[[Sequence[UnitFrames]], None],
    ) -> None:
        self.spec = spec
        self.device = device
        self.precision = precision
        self.encode = Lane(spec.name, "encode", max_batch_units, self._encode)
        self.classify = Lane(spec.name, "classify", max_batch_windows, self._classify)
        self._model = model
        self._release = release
        size = spec.preprocessing
        shape = (max_batch_units, spec.sampling.frames_per_unit, size.height, size.width, 3)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # Page-locked memory lets the copy to a GPU run without the processor.
            self._staging = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
            self._units = torch.empty(shape, dtype=torch.uint8, device=device)
            self._stream = torch.cuda.Stream(device)
            # The weights may still be on their way.
            self._stream.wait_stream(torch.cuda.current_stream(device))
        else:
            self._staging = self._units = torch.empty(shape, dtype=torch.uint8)

    @torch.inference_mode()
    def _encode(self, units: Sequence[UnitFrames]) -> Sequence[Embedding]:
        """N units of (t, H, W, C) -> N embeddings of (D,)."""
        with self._on_its_stream():
            for place, unit in enumerate(units):
                self._staging[place].numpy()[...] = unit.pixels
                if self._stream is not None:
                    # It travels while the next unit is gathered.
                    self._units[place].copy_(self._staging[place], non_blocking=True)
            self._release(units)
            # Each on its own: a row that is kept would keep all of its batch.
            embeddings = [each.clone() for each in self._model.encode(self._units[: len(units)]).unbind()]
            if self._stream is not None:
                # The staging memory is written again for the next batch.
                self._stream.synchronize()
        return embeddings

    @torch.inference_mode()
    def _classify(self, windows: Sequence[Sequence[Embedding]]) -> Sequence[Logits]:
        """B windows of S embeddings of (D,) -> B logits of (K,)."""
        with self._on_its_stream():
            batch = torch.stack([torch.stack(list(window)) for window in windows])
            return list(self._model.classify(batch).float().cpu().numpy())

    def _on_its_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
