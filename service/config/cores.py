"""The cores of the machine that this process may use."""

import math
import os
from contextlib import suppress
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container, cgroup version 2: microseconds in so many


def usable_cores(quota: Path = _QUOTA) -> int:
    """Those that it may run on; no more than its container's quota of processor time is worth."""
    cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # none, or "max"
        used_us, period_us = map(int, quota.read_text().split())
        cores = min(cores, max(1, math.ceil(used_us / period_us)))
    return cores
