"""The memory of several processes together."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import psutil


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """Memory of several processes together.

    ``measure`` is pss, where a page that n processes share counts as 1/n in each, or rss, where it counts
    whole in each.
    """

    measure: Literal["pss", "rss"]
    total_bytes: int


def read_memory(process_ids: Iterable[int]) -> GroupMemory:
    """Sum up the PSS of all processes, or the RSS of all if the kernel refuses the PSS of any.

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
