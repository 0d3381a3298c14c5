"""A hidden folder that a model is written into, before it gets its name; those of killed processes go."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

_RANDOM = 8  # characters that mkdtemp appends
_SETTLED_S = 60.0  # by then whoever made a folder has locked it


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """Make an empty hidden folder beside ``folder``; it is removed at the end, unless it was renamed.

    Raises:
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        lock = _lock(partial)
        try:
            yield partial
        finally:
            if lock is not None:
                os.close(lock)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # it is not empty: it holds this folder, or others
            folder.parent.rmdir()


def _remove_abandoned(folder: Path) -> None:
    """Remove the hidden folders of processes that were killed while they wrote ``folder``."""
    for partial in folder.parent.glob(f".{escape(folder.name)}-{'?' * _RANDOM}"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > _SETTLED_S and (lock := _lock(partial)) is not None:
                shutil.rmtree(partial, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder; return its descriptor, or None if a process has it or its file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
