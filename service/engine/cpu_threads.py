"""The number of threads that torch uses for a batch on a CPU.

A batch on several threads waits at each layer for the slowest of them. While decoders run, one of the threads
often has no core. So under load, one batch on each core is faster than one batch on all cores.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class CpuThreads:
    """Shares ``total`` threads among the batches that are computed at the same time."""

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
