"""The choice of packets that must be decoded for the requested frames: integers only, no I/O.

Times are ticks of the stream. A frame is shown from its PTS until the next frame's; ``wanted`` is a requested
time. Packets come in decoding order, in which no frame is shown before it is decoded. So once a packet of DTS
d has been read, all frames up to d are known.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

_MAX_PACKETS = 1024  # the wait for a key frame that makes all packets before it unnecessary ends here


class PacketInfo(NamedTuple):
    """The timestamps and flags of a packet."""

    pts: int
    dts: int | None  # None before the first known DTS
    is_key_frame: bool  # decoding can begin at it
    is_shown: bool = True  # False: cut away by an edit list, though other frames may need it


class Lookahead:
    """A FIFO queue of packets that were read but neither decoded nor dropped."""

    def __init__(self) -> None:
        self._queue: deque[PacketInfo] = deque()
        self._times: list[int] = []  # PTS that were read, sorted, from the frame shown last on
        self._horizon: int | None = None  # all frames shown up to this time are known
        self._ended = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether there are too many packets to wait for more."""
        return len(self._queue) >= _MAX_PACKETS

    def add(self, info: PacketInfo, wanted: int) -> int:
        """Append the next packet, and return how many packets before it were dropped.

        They are dropped if decoding can start at this packet, because the next requested time ``wanted`` is
        not before it.

        Raises:
            UnreliableTimestamps: timestamps do not rise as they must.
        """
        if info.dts is not None:
            if self._horizon is not None and info.dts <= self._horizon:
                raise UnreliableTimestamps(f"DTS {info.dts} is not after DTS {self._horizon}")
            if info.pts < info.dts:
                raise UnreliableTimestamps(f"PTS {info.pts} is before DTS {info.dts}")
            self._horizon = info.dts
        elif self._horizon is not None:
            raise UnreliableTimestamps("a packet has no DTS")
        dropped = 0
        if info.is_key_frame and info.pts <= wanted and all(time < info.pts for time in self._times[-1:]):
            dropped = len(self._queue)
            self._queue.clear()
            self._times.clear()
        self._queue.append(info)
        if info.is_shown:
            insort(self._times, info.pts)
        return dropped

    def end(self) -> None:
        """Record that no packet follows."""
        self._ended = True

    def is_decided(self, wanted: int) -> bool:
        """Whether it is known which frame is shown at ``wanted``."""
        return self._ended or (self._horizon is not None and self._horizon >= wanted)

    def shown_at(self, wanted: int) -> int | None:
        """Return the PTS of the frame shown at ``wanted``, or the first frame's if none is shown yet.

        ``wanted`` must be decided. No later call may ask for an earlier time.
        """
        del self._times[: max(0, bisect_right(self._times, wanted) - 1)]
        return self._times[0] if self._times else None

    def is_last(self, pts: int) -> bool:
        """Whether the frame at ``pts`` is the last one of the stream."""
        return self._ended and self._times[-1:] == [pts]

    def packets_until(self, pts: int) -> int:
        """Return how many packets to decode until the one at ``pts``; 0 if it is decoded already."""
        places = (place for place, info in enumerate(self._queue, 1) if info.pts == pts and info.is_shown)
        return next(places, 0)

    def is_needed(self, info: PacketInfo, wanted: Sequence[int]) -> bool:
        """Whether the frame of ``info`` may be requested.

        ``wanted`` are the requested times, from the next one to the first one after the frame.
        """
        if not info.is_shown:
            return False
        after = bisect_right(self._times, info.pts)
        until = self._times[after] if after < len(self._times) else None  # None: unknown yet
        if after == 1 and wanted and wanted[0] < info.pts:
            return True  # the first frame also serves the times before it
        first = bisect_left(wanted, info.pts)
        return first < len(wanted) and (until is None or wanted[first] < until)

    def pop(self) -> PacketInfo:
        """Remove and return the front packet, which is decoded now."""
        return self._queue.popleft()


class UnreliableTimestamps(Exception):
    """The timestamps of a stream do not tell which frame is shown when."""
