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
from tubelet.service.engine.cpu_threads import CpuThreads
from tubelet.service.engine.stage_queue import BatchFailed, PendingBatch
from tubelet.service.types.video import UnitFrames

Embedding = Tensor  # (D,), in the processor's memory
Logits = np.ndarray  # (K,) float32
R = TypeVar("R")

_BUFFERS = 2  # batches whose pixels are in staging memory: one is computed, the next is gathered
_COPIED_UNITS = 16  # at once to a GPU, while the next ones are gathered


class ModelRunner:
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
        cpu_threads: CpuThreads,
    ) -> None:
        self.device = device
        self._spec = spec
        self._cpu_threads = cpu_threads
        self._batches_a_window = spec.sampling.units_per_window
        self._model = model
        self._release = release
        size = spec.preprocessing
        shape = (max_batch_units, spec.sampling.frames_per_unit, size.height, size.width, 3)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # Page-locked memory lets the copy to a GPU run without the processor.
            self._staging_buffers = [
                torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(_BUFFERS)
            ]
            self._units = [torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(_BUFFERS)]
            self._stream = torch.cuda.Stream(device)
            self._copy_stream = torch.cuda.Stream(device)
            # The weights may still be on their way.
            self._stream.wait_stream(torch.cuda.current_stream(device))
        else:
            self._staging_buffers = self._units = [torch.empty(shape, dtype=torch.uint8)]
        self._buffer = 0

    def on_one_thread(self) -> "ModelRunner":
        """Return a replica on this CPU, of the same model, that computes on one thread beside this one."""
        most = len(self._staging_buffers[0])
        return ModelRunner(self._spec, self._model, self.device, most, lambda units: None, CpuThreads(1))

    @torch.inference_mode()
    def encode(self, units: Sequence[UnitFrames]) -> Sequence[Embedding] | PendingBatch[Embedding]:
        """N units of (t, H, W, C) -> N embeddings of (D,)."""
        # Its last batch has been waited for: no more than the one in between is under way.
        self._buffer = (self._buffer + 1) % len(self._staging_buffers)
        staging, pixels = self._staging_buffers[self._buffer], self._units[self._buffer]
        if self._stream is None:
            _stack_into(units, staging)
            self._release(units)
            with _copy_units_on_failure(units, staging), self._cpu_threads.share(self._batches_a_window):
                return _clone_rows(self._model.encode(pixels[: len(units)]))
        with torch.cuda.stream(self._copy_stream):
            for start in range(0, len(units), _COPIED_UNITS):
                part = slice(start, min(start + _COPIED_UNITS, len(units)))
                _stack_into(units[part], staging[part])
                pixels[part].copy_(staging[part], non_blocking=True)
        self._release(units)
        with _copy_units_on_failure(units, staging), torch.cuda.stream(self._stream):
            self._stream.wait_stream(self._copy_stream)
            started = _copy_to_host(self._model.encode(pixels[: len(units)]), _clone_rows)

        def wait() -> Sequence[Embedding]:
            with _copy_units_on_failure(units, staging):
                return started.wait()

        return PendingBatch(wait)

    @torch.inference_mode()
    def classify(self, windows: Sequence[Sequence[Embedding]]) -> Sequence[Logits] | PendingBatch[Logits]:
        """B windows of S embeddings of (D,), from whatever device -> B logits of (K,)."""
        batch = torch.stack([torch.stack(list(row)) for row in windows])
        if self._stream is None:
            with self._cpu_threads.share(self._cpu_threads.total):
                return list(self._model.classify(batch).float().numpy())
        with torch.cuda.stream(self._stream):
            batch = batch.pin_memory().to(self.device, non_blocking=True)
            return _copy_to_host(self._model.classify(batch).float(), lambda logits: list(logits.numpy()))


@contextmanager
def _copy_units_on_failure(units: Sequence[UnitFrames], staging: Tensor) -> Iterator[None]:
    """Whoever tries again what fails here must not look where the units were: others are there by then.

    Raises:
        BatchFailed: with the same units, as they were gathered.
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
        raise BatchFailed(kept) from error


def _stack_into(units: Sequence[UnitFrames], staging: Tensor) -> None:
    """N units, where they came, into the first N places. torch copies several of them at a time."""
    assert units[0].pixels.shape == staging.shape[1:], "torch would make room for another shape, elsewhere"
    torch.stack([torch.from_numpy(unit.pixels) for unit in units], out=staging[: len(units)])


def _copy_to_host(results: Tensor, split: Callable[[Tensor], Sequence[R]]) -> PendingBatch[R]:
    """What this stream computes, once it is in the processor's memory."""
    found = torch.empty(results.shape, dtype=results.dtype, pin_memory=True)
    found.copy_(results, non_blocking=True)
    done = torch.cuda.current_stream(results.device).record_event()

    def wait() -> Sequence[R]:
        done.synchronize()
        return split(found)

    return PendingBatch(wait)


def _clone_rows(embeddings: Tensor) -> list[Embedding]:
    """Each on its own: a row that is kept would keep all of its batch."""
    return [each.clone() for each in embeddings.unbind()]
