"""The memory of a group of processes, as the kernel accounts for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import psutil


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """The sum over processes, and its measure: pss counts a page that n of them share as 1/n in each."""

    measure: Literal["pss", "rss"]
    total_bytes: int


def read_memory(process_ids: Iterable[int]) -> GroupMemory:
    """Sum up the PSS of the processes, or the RSS where the kernel refuses one's PSS.

    A process that has ended meanwhile counts nothing.
    """
    pss = rss = 0
    is_readable = True
    for process_id in process_ids:
        try:
            process = psutil.Process(process_id)
            rss += process.memory_info().rss
            pss += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        except (psutil.AccessDenied, AttributeError):  # the latter of a kernel without PSS
            is_readable = False
    return GroupMemory("pss", pss) if is_readable else GroupMemory("rss", rss)
