"""Which packets must be decoded so that each wanted time gets its frame: pure integers, no I/O.

Times are ticks of the stream. A frame is shown from its presentation stamp until the next frame's; "wanted"
is a time at which the frame shown then is asked for. Packets come in the order of decoding, in which no frame
is shown before it is decoded: once a packet of decoding stamp d is read, all frames up to d are known.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

_MAX_PACKETS = 1024  # held at most: for so long, a key frame that makes all of them needless is waited for


class Stamp(NamedTuple):
    """What a packet says of its frame."""

    pts: int
    dts: int | None  # None: before any that is known
    is_key: bool  # decoding can begin here
    is_shown: bool = True  # False: an edit list has cut it away, though others may need it


class Lookahead:
    """Packets that are read and neither decoded nor dropped yet, first in first out."""

    def __init__(self) -> None:
        self._queue: deque[Stamp] = deque()
        self._times: list[int] = []  # presentation stamps that were read, sorted, from the one shown last on
        self._horizon: int | None = None  # all frames up to here are known
        self._ended = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """There are too many packets to wait for more."""
        return len(self._queue) >= _MAX_PACKETS

    def add(self, stamp: Stamp, wanted: int) -> int:
        """Take the next packet. How many before it need no decoding, ``wanted`` being the next wanted time.

        They are forgotten here: decoding goes on at this one.

        Raises:
            Disorder: the stamps do not rise as those of a sound stream do.
        """
        if stamp.dts is not None:
            if self._horizon is not None and stamp.dts <= self._horizon:
                raise Disorder(f"decoding stamp {stamp.dts} after {self._horizon}")
            if stamp.pts < stamp.dts:
                raise Disorder(f"decoded at {stamp.dts}, shown at {stamp.pts}")
            self._horizon = stamp.dts
        elif self._horizon is not None:
            raise Disorder("no decoding stamp")
        dropped = 0
        if stamp.is_key and stamp.pts <= wanted and all(time < stamp.pts for time in self._times[-1:]):
            dropped = len(self._queue)
            self._queue.clear()
            self._times.clear()
        self._queue.append(stamp)
        if stamp.is_shown:
            insort(self._times, stamp.pts)
        return dropped

    def end(self) -> None:
        """No packet follows."""
        self._ended = True

    def is_settled(self, wanted: int) -> bool:
        """Is it known which frame is shown then?"""
        return self._ended or (self._horizon is not None and self._horizon >= wanted)

    def shown_at(self, wanted: int) -> int | None:
        """The stamp of the frame shown at a settled time; the first one's if none is due by then.

        No later call may ask for an earlier time.
        """
        del self._times[: max(0, bisect_right(self._times, wanted) - 1)]
        return self._times[0] if self._times else None

    def is_last(self, pts: int) -> bool:
        """Is no frame of the stream shown after this one?"""
        return self._ended and self._times[-1:] == [pts]

    def packets_to(self, pts: int) -> int:
        """How many from the front on, up to the one of this stamp; none if it is decoded already."""
        places = (place for place, stamp in enumerate(self._queue, 1) if stamp.pts == pts and stamp.is_shown)
        return next(places, 0)

    def is_needed(self, stamp: Stamp, wanted: Sequence[int]) -> bool:
        """May its frame be asked for? ``wanted`` are the times from the next one on to the first after it."""
        if not stamp.is_shown:
            return False
        after = bisect_right(self._times, stamp.pts)
        until = self._times[after] if after < len(self._times) else None  # None: not known yet
        if after == 1 and wanted and wanted[0] < stamp.pts:
            return True  # the first frame stands for the times before it
        first = bisect_left(wanted, stamp.pts)
        return first < len(wanted) and (until is None or wanted[first] < until)

    def pop(self) -> Stamp:
        """The front packet goes to the decoder."""
        return self._queue.popleft()


class Disorder(Exception):
    """The stamps of a stream do not tell which frame is shown when."""
