"""The processor's cores, shared out among the threads that compute on it.

A batch on several threads waits at each layer for the slowest of them, and whatever else runs on the machine
keeps one of them from its core: with decoders at work, a batch on each core does more than one batch on all.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class CpuThreads:
    """``total`` threads for all batches that are computed at the same time."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._lock = threading.Lock()
        self._busy = 0
        self._own = threading.local()

    @contextmanager
    def share(self, parallel_batches: int) -> Iterator[None]:
        """torch computes on a share of the cores until the context ends, on the thread that enters it.

        It is what so many batches would each get, or as many as there are now: a window of one large unit has
        all cores while nothing else is computed, one of many small units has its next units in other batches.
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
        """torch computes with so many threads from now on, on the thread that calls this.

        Nobody else may tell it: only what has changed is.
        """
        if getattr(self._own, "threads", 0) != threads:  # it costs more than a small layer
            torch.set_num_threads(threads)
            self._own.threads = threads
