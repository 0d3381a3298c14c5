"""A model on one device: how a batch of its units or windows is gathered, copied and computed there.

N units in a batch, B windows, S units in a window, t frames in a unit, H W C pixels,
D embedding width, K classes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from models.contract import ModelSpec, VideoModel
from service.engine.cores import Cores
from service.engine.lane import Started
from service.values import UnitFrames

Embedding = Tensor  # (D,), stays on its device
Logits = np.ndarray  # (K,) float32

_AHEAD = 2  # batches whose pixels are in staging memory: one is computed, the next is gathered


class Replica:
    """``encode`` and ``classify`` run batches, on the thread of the device alone.

    On a GPU they return once all is on its way; on a CPU, once it is computed. ``release`` receives the units
    of a batch as soon as their pixels are copied. Replicas on a processor's ``cores`` may share a model.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: VideoModel,
        device: torch.device,
        max_batch_units: int,
        release: Callable[[Sequence[UnitFrames]], None],
        cores: Cores,
    ) -> None:
        self.device = device
        self._cores = cores
        self._batches_a_window = spec.sampling.units_per_window
        self._model = model
        self._release = release
        size = spec.preprocessing
        shape = (max_batch_units, spec.sampling.frames_per_unit, size.height, size.width, 3)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # Page-locked memory lets the copy to a GPU run without the processor.
            self._stagings = [torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(_AHEAD)]
            self._units = [torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(_AHEAD)]
            self._stream = torch.cuda.Stream(device)
            self._copying = torch.cuda.Stream(device)
            # The weights may still be on their way.
            self._stream.wait_stream(torch.cuda.current_stream(device))
        else:
            self._stagings = self._units = [torch.empty(shape, dtype=torch.uint8)]
        self._place = 0

    @torch.inference_mode()
    def encode(self, units: Sequence[UnitFrames]) -> Sequence[Embedding] | Started[Embedding]:
        """N units of (t, H, W, C) -> N embeddings of (D,)."""
        # Its last batch has been waited for: no more than the one in between is under way.
        self._place = (self._place + 1) % len(self._stagings)
        staging, pixels = self._stagings[self._place], self._units[self._place]
        if self._stream is None:
            for place, unit in enumerate(units):
                staging[place].numpy()[...] = unit.pixels
            self._release(units)
            with self._cores.some(self._batches_a_window):
                return _separate(self._model.encode(pixels[: len(units)]))
        with torch.cuda.stream(self._copying):
            for place, unit in enumerate(units):
                staging[place].numpy()[...] = unit.pixels
                pixels[place].copy_(staging[place], non_blocking=True)  # while the next one is gathered
        self._release(units)
        self._stream.wait_stream(self._copying)
        with torch.cuda.stream(self._stream):
            embeddings = _separate(self._model.encode(pixels[: len(units)]))
            done = self._stream.record_event()

        def wait() -> Sequence[Embedding]:
            done.synchronize()
            return embeddings

        return Started(wait)

    @torch.inference_mode()
    def classify(self, windows: Sequence[Sequence[Embedding]]) -> Sequence[Logits] | Started[Logits]:
        """B windows of S embeddings of (D,), from whatever device -> B logits of (K,)."""
        with self._at_home():
            batch = torch.stack([torch.stack([each.to(self.device) for each in row]) for row in windows])
            logits = self._model.classify(batch).float()
            if self._stream is None:
                return list(logits.numpy())
            found = torch.empty(logits.shape, pin_memory=True)
            found.copy_(logits, non_blocking=True)
            done = self._stream.record_event()

        def wait() -> Sequence[Logits]:
            done.synchronize()
            return list(found.numpy())

        return Started(wait)

    def _at_home(self) -> AbstractContextManager[object]:
        """Where it computes."""
        if self._stream is not None:
            return torch.cuda.stream(self._stream)
        return self._cores.some(self._cores.total)


def _separate(embeddings: Tensor) -> list[Embedding]:
    """Each on its own: a row that is kept would keep all of its batch."""
    return [each.clone() for each in embeddings.unbind()]
