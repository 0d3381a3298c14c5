"""The number of processor cores that this process may use."""

import math
import os
from contextlib import suppress
from pathlib import Path

# A container's quota (cgroup version 2): microseconds of processor time, and the period that they are for.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """Count the cores this process may run on, at most as many as its container's CPU quota is worth."""
    cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no quota, or "max"
        quota_us, period_us = map(int, quota.read_text().split())
        cores = min(cores, max(1, math.ceil(quota_us / period_us)))
    return cores
