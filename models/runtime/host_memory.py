"""Host memory: how much is free, and how the allocator keeps what layers free."""

import ctypes
from contextlib import suppress
from pathlib import Path

import psutil

# Parameters of glibc's mallopt(3) and their values: bytes, for the arenas a count.
_M_TRIM_THRESHOLD, _KEPT_BYTES = -1, 1 << 30
_M_MMAP_THRESHOLD, _LARGEST_BYTES = -3, 32 << 20  # glibc refuses more
_M_ARENA_MAX, _ARENAS = -8, 1

_CGROUP = Path("/sys/fs/cgroup")  # control group version 2: a container's memory limit and usage


def free_bytes() -> int:
    """Return how many bytes this process can allocate without swapping or exceeding its container's limit."""
    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # "max" is not a number
        limit = int((_CGROUP / "memory.max").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        # Cached files count as used, but the kernel drops them as soon as memory is needed.
        cached = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()) + cached)
    return free


def keep_freed_memory() -> None:
    """Make glibc's allocator keep up to 1 GiB of freed memory; other allocators are left as they are.

    By default glibc returns the results of each layer to the kernel, which then clears new pages for the next
    layer: a fifth of the time of a small model. Threads that start later share one arena, because a thread's
    own arena consists of heaps of 64 MiB, and empty heaps are returned whatever is set.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
