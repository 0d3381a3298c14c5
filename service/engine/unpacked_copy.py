"""The unpacked float32 copy of a served model, which explanations need; it is loaded at first use."""

import asyncio
from collections.abc import Callable
from functools import partial

import torch

from tubelet.models.explain.transformer import Transformer, as_transformer
from tubelet.models.repository.model_folder import Entry
from tubelet.models.video_model import VideoModel
from tubelet.service.engine.daemon_threads import run_in_daemon_thread


class UnpackedCopy:
    """The copy of the model of ``entry`` on ``device``. Only the event loop may use it.

    ``size_bytes`` is that of its weights, 0 while it is not loaded; ``on_change`` is called when it changes.
    """

    def __init__(self, entry: Entry, device: torch.device, on_change: Callable[[], None]) -> None:
        self.size_bytes = 0
        self._entry = entry
        self._device = device
        self._on_change = on_change
        self._loading: asyncio.Task[VideoModel] | None = None
        self._described: asyncio.Task[Transformer | None] | None = None

    async def describe(self) -> Transformer | None:
        """Return how explanations see the model, without its weights; None if they cannot see into it."""
        if self._described is None or _has_failed(self._described):
            work = run_in_daemon_thread(lambda: as_transformer(self._entry.on_meta()))
            self._described = asyncio.create_task(work)
        return await asyncio.shield(self._described)

    async def load(self) -> VideoModel:
        """Return the model. The first call loads it, for all calls that wait; if that fails, the next one.

        Raises:
            tubelet.models.errors.BrokenModel: its folder was changed or removed, or memory is short.
        """
        if self._loading is None or _has_failed(self._loading):
            self._loading = asyncio.create_task(self._load())
        return await asyncio.shield(self._loading)

    def release(self) -> None:
        """Forget the model; the caller asks for it no more."""
        if self._loading is not None:
            self._loading.cancel()
            self._loading = None
        self._set_size(0)

    async def _load(self) -> VideoModel:
        """Load the model on a thread."""
        model = await run_in_daemon_thread(partial(_load, self._entry, self._device))
        tensors = (*model.parameters(), *model.buffers())
        self._set_size(sum(tensor.nbytes for tensor in tensors))
        return model

    def _set_size(self, size_bytes: int) -> None:
        """Set the size, and tell of it."""
        self.size_bytes = size_bytes
        self._on_change()


def _load(entry: Entry, device: torch.device) -> VideoModel:
    """Load the model of ``entry`` in float32 onto ``device``."""
    return entry.load().to(device)


def _has_failed(task: "asyncio.Task[object]") -> bool:
    """Return whether ``task`` ended without a result."""
    return task.done() and (task.cancelled() or task.exception() is not None)
