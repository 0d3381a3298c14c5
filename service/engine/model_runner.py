"""A model on one device: how a batch of its units or windows is gathered, copied and computed there.

N units in a batch, B windows, S units in a window, t frames in a unit, H W C pixels,
D embedding width, K classes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tubelet.models.spec import ModelSpec
from tubelet.models.video_model import VideoModel
from tubelet.service.engine.cpu_threads import Cores
from tubelet.service.engine.stage_queue import Started, Unfinished
from tubelet.service.types.video import UnitFrames

Embedding = Tensor  # (D,), in the processor's memory
Logits = np.ndarray  # (K,) float32
R = TypeVar("R")

_AHEAD = 2  # batches whose pixels are in staging memory: one is computed, the next is gathered
_COPIED_UNITS = 16  # at once to a GPU, while the next ones are gathered


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
        self._spec = spec
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

    def on_one_thread(self) -> "Replica":
        """Return a replica on this CPU, of the same model, that computes on one thread beside this one."""
        most = len(self._stagings[0])
        return Replica(self._spec, self._model, self.device, most, lambda units: None, Cores(1))

    @torch.inference_mode()
    def encode(self, units: Sequence[UnitFrames]) -> Sequence[Embedding] | Started[Embedding]:
        """N units of (t, H, W, C) -> N embeddings of (D,)."""
        # Its last batch has been waited for: no more than the one in between is under way.
        self._place = (self._place + 1) % len(self._stagings)
        staging, pixels = self._stagings[self._place], self._units[self._place]
        if self._stream is None:
            _gather(units, staging)
            self._release(units)
            with _retriable(units, staging), self._cores.some(self._batches_a_window):
                return _separate(self._model.encode(pixels[: len(units)]))
        with torch.cuda.stream(self._copying):
            for start in range(0, len(units), _COPIED_UNITS):
                part = slice(start, min(start + _COPIED_UNITS, len(units)))
                _gather(units[part], staging[part])
                pixels[part].copy_(staging[part], non_blocking=True)
        self._release(units)
        with _retriable(units, staging), torch.cuda.stream(self._stream):
            self._stream.wait_stream(self._copying)
            started = _fetched(self._model.encode(pixels[: len(units)]), _separate)

        def wait() -> Sequence[Embedding]:
            with _retriable(units, staging):
                return started.wait()

        return Started(wait)

    @torch.inference_mode()
    def classify(self, windows: Sequence[Sequence[Embedding]]) -> Sequence[Logits] | Started[Logits]:
        """B windows of S embeddings of (D,), from whatever device -> B logits of (K,)."""
        batch = torch.stack([torch.stack(list(row)) for row in windows])
        if self._stream is None:
            with self._cores.some(self._cores.total):
                return list(self._model.classify(batch).float().numpy())
        with torch.cuda.stream(self._stream):
            batch = batch.pin_memory().to(self.device, non_blocking=True)
            return _fetched(self._model.classify(batch).float(), lambda logits: list(logits.numpy()))


@contextmanager
def _retriable(units: Sequence[UnitFrames], staging: Tensor) -> Iterator[None]:
    """Whoever tries again what fails here must not look where the units were: others are there by then.

    Raises:
        Unfinished: with the same units, as they were gathered.
    """
    try:
        yield
    except Exception as error:
        kept: list[UnitFrames] = []
        with suppress(MemoryError):
            pixels = staging[: len(units)].numpy().copy()
            kept = [
                UnitFrames(unit.grid, unit.unit, each, lambda: None)
                for unit, each in zip(units, pixels, strict=True)
            ]
        raise Unfinished(kept) from error


def _gather(units: Sequence[UnitFrames], staging: Tensor) -> None:
    """N units, where they came, into the first N places. torch copies several of them at a time."""
    assert units[0].pixels.shape == staging.shape[1:], "torch would make room for another shape, elsewhere"
    torch.stack([torch.from_numpy(unit.pixels) for unit in units], out=staging[: len(units)])


def _fetched(results: Tensor, share: Callable[[Tensor], Sequence[R]]) -> Started[R]:
    """What this stream computes, once it is in the processor's memory."""
    found = torch.empty(results.shape, dtype=results.dtype, pin_memory=True)
    found.copy_(results, non_blocking=True)
    done = torch.cuda.current_stream(results.device).record_event()

    def wait() -> Sequence[R]:
        done.synchronize()
        return share(found)

    return Started(wait)


def _separate(embeddings: Tensor) -> list[Embedding]:
    """Each on its own: a row that is kept would keep all of its batch."""
    return [each.clone() for each in embeddings.unbind()]
