"""Where the bytes of an upload are: in memory or on disk."""

import os


def backing(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")
