"""Tells whether the bytes of an upload are in memory or on disk."""

import os


def backing(fd: int) -> str:
    """Return the path of the file behind ``fd``, as /proc names it."""
    return os.readlink(f"/proc/self/fd/{fd}")
