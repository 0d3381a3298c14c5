"""Memory that a model's layers take and give back thousands of times a second."""

import ctypes
from contextlib import suppress
from pathlib import Path

import psutil

# Parameters of glibc's mallopt(3) and their values, bytes.
_M_TRIM_THRESHOLD, _KEPT_BYTES = -1, 1 << 30
_M_MMAP_THRESHOLD, _LARGEST_BYTES = -3, 32 << 20  # more is refused
_M_ARENA_MAX, _ARENAS = -8, 1

_CGROUP = Path("/sys/fs/cgroup")  # of a container, version 2: what it may use, what it uses


def free_bytes() -> int:
    """What can be allocated without swapping: on this machine, and in this container."""
    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # "max" is no number
        limit = int((_CGROUP / "memory.max").read_text())
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()))
    return free


def keep_freed_memory() -> None:
    """Have the allocator of this process keep up to 1 GiB of what is freed, where it is glibc's.

    By default it hands the results of each layer back to the kernel, and the next layer's come as pages that
    the kernel clears one by one: a fifth of the time of a small model. Threads that start from then on share
    one arena: a thread's own is made of heaps of 64 MiB, and one that is empty is given back whatever is set.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
