"""Quotas: how much each identity has used, and when it may use more.

A quota of so much in a period is a bucket (a leaky bucket as a meter, ITU-T I.371, annex A). What is used
fills it, and it drains evenly: a full one is empty after the period. So after a pause all of a quota can be
used at once, and in the long run no more is used than the quota. The state of an identity is three buckets.
"""

from collections.abc import Callable
from datetime import timedelta
from math import ceil, inf
from time import monotonic
from typing import Literal

from tubelet.service.config.identities import Identities, Identity
from tubelet.service.config.quotas import QuotasConfig
from tubelet.service.errors import BytesQuotaExceeded, QuotaExceeded
from tubelet.service.types.meter import Meter

Drained = Literal["videos_per_minute", "bytes_per_day", "device_seconds_per_hour"]
"""The quotas of a period, which are buckets."""

_PERIODS_S: dict[Drained, float] = {
    "videos_per_minute": 60.0,
    "bytes_per_day": 86_400.0,
    "device_seconds_per_hour": 3600.0,
}
# The part of a quota that must be left where a video begins: else one would begin as soon as a byte is left,
# and be cut off, again and again.
_LEAST_LEFT = 0.01
_LONG_S = 100  # from which on a time is written with hours and minutes


class Bucket:
    """How much of a quota is used: ``limit`` in ``period_s`` at most."""

    def __init__(self, limit: int, period_s: float, now: float) -> None:
        self.limit = limit
        self._period_s = period_s
        self._used = 0.0
        self._at = now

    def used(self, now: float) -> float:
        """Return how much is in the bucket at ``now``."""
        drained = self.limit * max(0.0, now - self._at) / self._period_s
        return max(0.0, self._used - drained)

    def add(self, amount: float, now: float) -> None:
        """Count ``amount``, even if it is more than there is room for."""
        self._used = self.used(now) + amount
        self._at = now

    def wait_s(self, room: float, now: float) -> float:
        """Return in how many seconds there is ``room``: 0 if there is, infinity if there never will be."""
        if not self.limit or room > self.limit:
            return inf
        return max(0.0, self.used(now) + room - self.limit) * self._period_s / self.limit

    def change(self, limit: int, now: float) -> None:
        """Set another limit; what is used stays, but no more than makes the bucket full."""
        self._used = min(self.used(now), limit)
        self._at = now
        self.limit = limit


class Usage:
    """What one identity has used of its ``quotas``."""

    def __init__(self, name: str, quotas: QuotasConfig, clock: Callable[[], float]) -> None:
        self.name = name
        self.buckets: dict[Drained, Bucket] = {}
        self._clock = clock
        self.change(quotas)

    def change(self, quotas: QuotasConfig) -> None:
        """Set other quotas; what was counted for those that are still there stays."""
        now, before, self.buckets = self._clock(), self.buckets, {}
        for quota, period_s in _PERIODS_S.items():
            limit = getattr(quotas, quota)
            if limit is None:
                continue
            bucket = self.buckets[quota] = before.get(quota) or Bucket(limit, period_s, now)
            if bucket.limit != limit:
                bucket.change(limit, now)

    def check(self) -> None:
        """Check that one more video may begin.

        Raises:
            QuotaExceeded: a quota is used up; of several, the one that takes longest.
        """
        now = self._clock()
        waits: dict[Drained, float] = {
            quota: bucket.wait_s(_room(quota, bucket), now) for quota, bucket in self.buckets.items()
        }
        quota = max(waits, key=waits.__getitem__, default=None)
        if quota is None or not waits[quota]:
            return
        bucket, wait_s = self.buckets[quota], waits[quota]
        if not bucket.limit:
            raise nothing_allowed(self.name, quota)
        used = _shown(quota, bucket.used(now))
        raise QuotaExceeded(
            f"{self.name} has used {used} of its quota {quota} of {bucket.limit}; {_again(wait_s)}",
            retry_after_s=wait_s,
            quota=quota,
            limit=bucket.limit,
            value=used,
        )

    def begin(self) -> Meter:
        """Count a video that begins; return the meter of its request."""
        if bucket := self.buckets.get("videos_per_minute"):
            bucket.add(1, self._clock())
        return Meter(self.name, _VideoBytes(self).count, self._count_device_s)

    def count_bytes(self, amount: int, of_video: int) -> None:
        """Count ``amount`` bytes of a video that has ``of_video`` so far.

        Raises:
            BytesQuotaExceeded: that is more than is left.
        """
        bucket = self.buckets.get("bytes_per_day")
        if bucket is None:
            return
        now = self._clock()
        bucket.add(amount, now)
        if bucket.used(now) <= bucket.limit:
            return
        # The video has more bytes than have arrived. With twice their room at each try, a few are enough.
        wait_s = bucket.wait_s(min(2 * of_video, bucket.limit), now) if of_video <= bucket.limit else inf
        raise BytesQuotaExceeded(
            f"{self.name} has used up its quota bytes_per_day of {bucket.limit}, when {of_video} bytes of "
            f"this video had arrived; {_again(wait_s)}",
            retry_after_s=None if wait_s == inf else wait_s,
            quota="bytes_per_day",
            limit=bucket.limit,
            value=round(bucket.used(now)),
        )

    def _count_device_s(self, seconds: float) -> None:
        """Count ``seconds`` of a device."""
        if bucket := self.buckets.get("device_seconds_per_hour"):
            bucket.add(seconds, self._clock())


class _VideoBytes:
    """The bytes of one video of ``usage``."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._arrived = 0

    def count(self, amount: int) -> None:
        """Count ``amount`` bytes more; raises as ``Usage.count_bytes`` does."""
        self._arrived += amount
        self._usage.count_bytes(amount, self._arrived)


class Quotas:
    """What the identities that have quotas have used of them; ``clock`` is monotonic."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._usages: dict[str, Usage] = {}

    def of(self, identity: Identity) -> Usage | None:
        """Return what ``identity`` has used; None if it has no quota."""
        if identity.quotas is None:
            return None
        usage = self._usages.get(identity.name)
        if usage is None:
            usage = self._usages[identity.name] = Usage(identity.name, identity.quotas, self._clock)
        return usage

    def follow(self, identities: Identities) -> None:
        """Apply the quotas of ``identities``, which are in use from now on; forget those who have none."""
        for name, usage in tuple(self._usages.items()):
            identity = identities.of_name(name)
            if identity is None or identity.quotas is None:
                del self._usages[name]
            else:
                usage.change(identity.quotas)


def nothing_allowed(name: str, quota: str) -> QuotaExceeded:
    """Make the error of an identity with a ``quota`` of zero."""
    return QuotaExceeded(
        f"{name} may send no videos: its quota {quota} is 0",
        retry_after_s=None,
        quota=quota,
        limit=0,
        value=0,
    )


def _room(quota: Drained, bucket: Bucket) -> float:
    """Return the room that a video needs in the bucket of ``quota`` where it begins."""
    return 1 if quota == "videos_per_minute" else _LEAST_LEFT * bucket.limit


def _shown(quota: Drained, used: float) -> str:
    """Return what is used as text: device seconds with one decimal; a begun video or byte is a whole one."""
    return f"{used:.1f}" if quota == "device_seconds_per_hour" else str(ceil(round(used, 3)))


def _again(wait_s: float) -> str:
    """Say when to try again, if ever."""
    if wait_s == inf:
        return "this video is larger than the quota"
    wait = f"{wait_s:.3g} s" if wait_s < _LONG_S else str(timedelta(seconds=ceil(wait_s)))
    return f"try again in {wait}"
