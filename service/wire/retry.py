"""Retries of failed calls: whether and when a client calls again."""

import random
from collections import Counter
from math import inf
from time import monotonic

from tubelet.service.errors import QuotaExceeded, StorageFull
from tubelet.service.wire.connection_failure import CONNECTION_LOST
from tubelet.service.wire.status import ServerError

# The most tries of a video, by the reason of its failure. After a lost connection, the server may have been
# restarted; if its disk is full, the video may be larger than the disk. Other reasons have no limit.
_MAX_TRIES = {CONNECTION_LOST: 2, StorageFull.reason: 3}
# Without a timeout of the caller, the longest pause for a reason. A quota of a day may take hours to be free.
_MAX_PAUSES_S = {QuotaExceeded.reason: 60.0}
# The pause after a lost connection, seconds. A call made at once may still be given to it, and be lost, too.
_RECONNECT_S = 0.1
_JITTER = 1.5  # largest factor that lengthens a pause, so that rejected calls do not return together


class Retries:
    """The retries of one call, within the caller's timeout ``timeout_s``."""

    def __init__(self, timeout_s: float | None = None) -> None:
        self._deadline = None if timeout_s is None else monotonic() + timeout_s
        self._failed = Counter[str]()

    @property
    def timeout_s(self) -> float | None:
        """The seconds left of the caller's timeout; None if there is no timeout."""
        return None if self._deadline is None else max(0.0, self._deadline - monotonic())

    def pause_s(self, error: ServerError) -> float:
        """Return how many seconds to wait before the next try.

        Raises:
            ServerError: ``error`` itself, if no retry may succeed, or none fits into the timeout.
        """
        self._failed[error.reason] += 1
        max_tries = _MAX_TRIES.get(error.reason)
        is_last = (
            error.retry_after_s is None if max_tries is None else self._failed[error.reason] >= max_tries
        )
        least_s = _RECONNECT_S if error.reason == CONNECTION_LOST else 0
        pause_s = (error.retry_after_s or least_s) * random.uniform(1, _JITTER)
        left_s = self.timeout_s
        if left_s is None:
            is_too_long = (error.retry_after_s or 0) > _MAX_PAUSES_S.get(error.reason, inf)
        else:
            is_too_long = pause_s >= left_s
        if is_last or is_too_long:
            raise error
        return pause_s
