"""A monitor of the files that any process opens in a folder, by inotify(7)."""

import ctypes
import os
import struct
from pathlib import Path

_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")
_MAX_BYTES = 1 << 16


class FileAccessMonitor:
    """A monitor of the files that are opened in ``folder``."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0
        assert libc.inotify_add_watch(self._fd, os.fsencode(folder), _IN_OPEN) >= 0

    def pop_opened(self) -> set[str]:
        """Return the names of the files that have been opened since the last call."""
        try:
            data = os.read(self._fd, _MAX_BYTES)
        except BlockingIOError:
            return set()
        names = set()
        while data:
            *_, length = _EVENT.unpack_from(data)
            names.add(data[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode())
            data = data[_EVENT.size + length :]
        return names

    def close(self) -> None:
        os.close(self._fd)
