"""Wanted times moved to frames that cost little: key frames, which need no other frame to be decoded."""

from service.decode.clock import Timeline
from service.decode.tally import KeyFrames


class Exact:
    """Every time as it is wanted."""

    worst_ns = 0

    def __call__(self, time_ns: int, tolerance_ns: int) -> int:
        return time_ns


class Snap:
    """The nearest key frame's time if that is near enough; ``worst_ns`` is how far a time was moved at most.

    Times keep their order.
    """

    def __init__(self, keys: KeyFrames, timeline: Timeline) -> None:
        self.worst_ns = 0
        self._keys = keys
        self._timeline = timeline

    def __call__(self, time_ns: int, tolerance_ns: int) -> int:
        ticks = self._timeline.to_ticks(time_ns)
        around = (self._keys.before(ticks), self._keys.after(ticks))
        times = [self._timeline.to_ns(key.pts) for key in around if key is not None]
        nearest = min(times, key=lambda time: abs(time - time_ns), default=time_ns)
        if not 0 < abs(nearest - time_ns) <= tolerance_ns or nearest < 0:
            return time_ns
        self.worst_ns = max(self.worst_ns, abs(nearest - time_ns))
        return nearest
