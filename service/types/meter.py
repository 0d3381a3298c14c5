"""The meter of a request: on whose behalf it runs, and what counts the bytes and device time that it uses."""

from collections.abc import Callable
from dataclasses import dataclass


def _count_nothing(amount: float) -> None:
    """Ignore the amount."""


@dataclass(frozen=True, slots=True)
class Meter:
    """The identity that a request is of, and functions that count what it uses; by default they do nothing.

    ``count_bytes`` gets the bytes of its video as they arrive, and raises ``QuotaExceeded`` where they are
    too many. ``count_device_s`` gets the seconds of devices. Both are called on the event loop.
    """

    identity: str = ""
    count_bytes: Callable[[int], None] = _count_nothing
    count_device_s: Callable[[float], None] = _count_nothing


UNMETERED = Meter()
"""The meter of requests of nobody in particular, which have no quotas."""
