"""Embeddings of units on disk, so that training again on the same clips decodes and encodes nothing.

W windows of a clip, S units in a window, D width of a unit's embedding.
"""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

_PARTIAL = ".partial-"
_ABANDONED_S = 24 * 3600.0  # without a change, a partial file is nobody's


class UnitCache:
    """A folder with a file for each clip; the files used longest ago are removed above ``max_bytes``.

    A key is made of all that decides the embeddings, so what is found is right. A damaged file is not found.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def get(self, *key: str) -> NDArray[np.float32] | None:
        """Return the embeddings (W, S, D) under ``key``, or None."""
        file = self._file(key)
        try:
            found = np.load(file, allow_pickle=False)
            os.utime(file)
        except (OSError, ValueError, EOFError):
            return None
        return found if found.ndim == 3 else None

    def put(self, embeddings: NDArray[np.float32], *key: str) -> None:
        """Write embeddings (W, S, D) under ``key``, completely or not at all.

        Raises:
            OSError: they cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=_PARTIAL, delete=False) as partial:
            try:
                np.save(partial, embeddings)
                partial.flush()
                os.replace(partial.name, self._file(key))
            except BaseException:
                with suppress(OSError):
                    os.unlink(partial.name)
                raise

    def trim(self) -> None:
        """Remove the files used longest ago until ``max_bytes`` are left, and what killed processes left."""
        for partial in self.folder.glob(f"{_PARTIAL}*"):
            with suppress(OSError):
                if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                    partial.unlink()
        used = []
        for file in self.folder.glob("*.npy"):
            with suppress(OSError):  # another process has removed it
                status = file.stat()
                used.append((status.st_mtime, status.st_size, file))
        used.sort(reverse=True)
        total = 0
        for _, size, file in used:
            total += size
            if total > self.max_bytes:
                with suppress(OSError):
                    file.unlink()

    def _file(self, key: tuple[str, ...]) -> Path:
        """Return the file of a key."""
        return self.folder / f"{blake3(chr(0).join(key).encode()).hexdigest()}.npy"
