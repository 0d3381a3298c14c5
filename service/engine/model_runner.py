"""The model runner: one model on one device, which gathers, copies and computes batches.

N units in a batch, B windows, S units in a window, t frames in a unit, H W C pixels,
D width of an embedding, E width of a window's vector, K classes.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tubelet.models.spec import ModelSpec
from tubelet.models.video_model import VideoModel
from tubelet.service.engine.stage_queue import BatchFailed, PendingBatch
from tubelet.service.types.video import UnitFrames

Embedding = Tensor  # (D,), in host memory
Logits = np.ndarray  # (K,) float32
R = TypeVar("R")


class WindowOutput(Enum):
    """What is computed of a window, in float32: its logits (K,), its vector (E,), or both as (K + E,)."""

    LOGITS = "logits"
    VECTOR = "vector"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class WindowInput:
    """The embeddings (D,) of a window's S units, from any devices, and what to compute of them."""

    embeddings: Sequence[Embedding]
    output: WindowOutput


_BUFFERS = 2  # staging buffers of a GPU: one batch is computed while the next is gathered
_UNITS_PER_COPY = 16  # to a GPU; the next units are gathered meanwhile


class CpuThreads:
    """Shares ``total`` threads of torch on a CPU among the batches that are computed at the same time.

    A batch on several threads waits at each layer for the slowest of them. While decoders run, one of the
    threads often has no core. So under load, one batch on each core is faster than one batch on all cores.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._lock = threading.Lock()
        self._busy = 0
        self._own = threading.local()

    @contextmanager
    def share(self, parallel_batches: int) -> Iterator[None]:
        """Let torch use one batch's share of the threads, on the calling thread, until the context ends.

        The threads are divided by ``parallel_batches``, or by the number of batches being computed where that
        is larger. A window of one large unit gets all threads while nothing else is computed. A window of
        many small units leaves threads for the batches of its next units.
        """
        with self._lock:
            self._busy += 1
            threads = max(1, self.total // max(self._busy, parallel_batches))
        try:
            self.set(threads)
            yield
        finally:
            with self._lock:
                self._busy -= 1

    def set(self, threads: int) -> None:
        """Let torch use this number of ``threads`` on the calling thread from now on.

        Nothing else may set the number on this thread: torch is called only when it changes.
        """
        if getattr(self._own, "threads", 0) != threads:  # setting it takes longer than a small layer
            torch.set_num_threads(threads)
            self._own.threads = threads


class ModelRunner:
    """Computes batches of ``model`` on ``device``. Only the device's thread may call it.

    On a GPU, ``encode`` and ``classify`` return a ``PendingBatch`` as soon as the work is queued; on a CPU,
    the results. ``release`` is called with the units of a batch once their pixels are copied. The runners of
    a CPU's cores may share a model, and share ``cpu_threads``.
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
        self._units_per_window = spec.sampling.units_per_window
        self._model = model
        self._release = release
        size = spec.preprocessing
        shape = (max_batch_units, spec.sampling.frames_per_unit, size.height, size.width, 3)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # From page-locked memory, a GPU copies without using the CPU.
            self._staging_buffers = [
                torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(_BUFFERS)
            ]
            self._units = [torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(_BUFFERS)]
            self._stream = torch.cuda.Stream(device)
            self._copy_stream = torch.cuda.Stream(device)
            # The weights may still be being copied.
            self._stream.wait_stream(torch.cuda.current_stream(device))
        else:
            self._staging_buffers = self._units = [torch.empty(shape, dtype=torch.uint8)]
        self._buffer = 0

    def on_one_thread(self) -> "ModelRunner":
        """Return a second runner of the same model on this CPU that computes on one thread."""
        max_batch_units = len(self._staging_buffers[0])
        return ModelRunner(
            self._spec, self._model, self.device, max_batch_units, lambda units: None, CpuThreads(1)
        )

    @torch.inference_mode()
    def encode(self, units: Sequence[UnitFrames]) -> Sequence[Embedding] | PendingBatch[Embedding]:
        """Compute the embeddings of ``units``: N of (t, H, W, C) -> N of (D,)."""
        # The batch that used this buffer has ended: at most the one in the other buffer is being computed.
        self._buffer = (self._buffer + 1) % len(self._staging_buffers)
        staging, pixels = self._staging_buffers[self._buffer], self._units[self._buffer]
        if self._stream is None:
            _stack_into(units, staging)
            self._release(units)
            with _copy_units_on_failure(units, staging), self._cpu_threads.share(self._units_per_window):
                return _clone_rows(self._model.encode(pixels[: len(units)]))
        with torch.cuda.stream(self._copy_stream):
            for start in range(0, len(units), _UNITS_PER_COPY):
                part = slice(start, min(start + _UNITS_PER_COPY, len(units)))
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
    def classify(self, windows: Sequence[WindowInput]) -> Sequence[np.ndarray] | PendingBatch[np.ndarray]:
        """Compute what each of ``windows`` asks for: B windows of S embeddings of (D,) -> B rows."""
        batch = torch.stack([torch.stack(list(window.embeddings)) for window in windows])
        outputs = [window.output for window in windows]
        if self._stream is None:
            with self._cpu_threads.share(self._cpu_threads.total):
                return self._split(self._compute(batch, outputs), outputs)
        with torch.cuda.stream(self._stream):
            batch = batch.pin_memory().to(self.device, non_blocking=True)
            return _copy_to_host(self._compute(batch, outputs), lambda rows: self._split(rows, outputs))

    def _compute(self, batch: Tensor, outputs: Sequence[WindowOutput]) -> Tensor:
        """Compute all that windows of the batch ask for: (B, S, D) -> (B, K), (B, E) or (B, K + E)."""
        wanted = set(outputs)
        if wanted == {WindowOutput.LOGITS}:
            return self._model.classify(batch).float()
        if wanted == {WindowOutput.VECTOR}:
            return self._model.pool(batch).float()
        vectors, logits = self._model.pool_and_classify(batch)
        return torch.cat((logits, vectors), dim=1).float()

    def _split(self, rows: Tensor, outputs: Sequence[WindowOutput]) -> list[np.ndarray]:
        """Return of each row what its window asks for."""
        found, wanted = rows.numpy(), set(outputs)
        if wanted == {WindowOutput.LOGITS}:
            return list(found)
        logits = 0 if wanted == {WindowOutput.VECTOR} else len(self._spec.labels)
        parts = {
            WindowOutput.LOGITS: slice(logits),
            WindowOutput.VECTOR: slice(logits, None),
            WindowOutput.BOTH: slice(None),
        }
        # A client may take long to read a vector: a view of it would keep the whole batch in memory.
        return [row[parts[output]].copy() for row, output in zip(found, outputs, strict=True)]


@contextmanager
def _copy_units_on_failure(units: Sequence[UnitFrames], staging: Tensor) -> Iterator[None]:
    """Turn any error in the context into ``BatchFailed``, with copies of ``units`` taken from ``staging``.

    By the time of a retry, a decoder may have reused the memory of the units themselves.
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
    """Copy the pixels of N ``units`` into the first N rows of ``staging``. torch copies several at a time."""
    assert units[0].pixels.shape == staging.shape[1:], "torch would allocate another tensor for another shape"
    torch.stack([torch.from_numpy(unit.pixels) for unit in units], out=staging[: len(units)])


def _copy_to_host(results: Tensor, split: Callable[[Tensor], Sequence[R]]) -> PendingBatch[R]:
    """Copy ``results`` of the current stream to host memory; ``split`` turns them into a batch's results."""
    found = torch.empty(results.shape, dtype=results.dtype, pin_memory=True)
    found.copy_(results, non_blocking=True)
    done = torch.cuda.Event(blocking=True)  # another one would keep a core busy while it is waited for
    done.record(torch.cuda.current_stream(results.device))

    def wait() -> Sequence[R]:
        done.synchronize()
        return split(found)

    return PendingBatch(wait)


def _clone_rows(embeddings: Tensor) -> list[Embedding]:
    """Return a copy of each row, since a view would keep the whole batch in memory."""
    return [each.clone() for each in embeddings.unbind()]
