"""The packets at the front of a stream that bring no frame, because what they refer to is missing.

A recording that was cut may begin between two key frames, or at the key frame of an open group (H.264, HEVC,
MPEG-2), whose leading pictures refer to the group before.
"""

from collections.abc import Sequence
from copy import copy
from itertools import count

from av.packet import Packet
from av.video.frame import VideoFrame

_LEADING = 64  # pictures at most that lead a key frame; more are stamps that are wrong


class Lead:
    """Tells which packets bring no frame. Frames come out in the order of showing, so these are the packets
    that would be shown before ``first``, the first frame that came out.

    ``packets`` are those that were read for it. ``slack`` is how many ticks later than ``first`` a packet may
    say that it is shown, and is early still: some writers move stamps up so that none is below the first.
    ``early_lack_stamps``: packets from before the stream's time zero have no stamps. ``goes_on``: more of
    them may come.
    """

    def __init__(
        self, first: VideoFrame, packets: Sequence[Packet], slack: int, *, early_lack_stamps: bool
    ) -> None:
        self._shown = first.dts if first.pts is None else first.pts
        self._late = None if self._shown is None else self._shown + slack
        self._early_lack_stamps = early_lack_stamps and first.pts is not None
        self._first = _place(first, packets)
        self._first_is_key = self._first is not None and packets[self._first].is_keyframe
        self._begin()

    def _begin(self) -> None:
        self._places = count()
        self.goes_on = self._first_is_key and self._shown is not None

    def afresh(self) -> "Lead":
        """The same, for who reads the stream once more from its beginning."""
        again = copy(self)
        again._begin()
        return again

    def has(self, pts: int | None, dts: int | None) -> bool:
        """Tell it of the next packet of the stream, from the very first one on."""
        place = next(self._places)
        if self._first is None or place == self._first:
            return False
        if place < self._first:
            return self._first_is_key if pts is None else self._shown is not None and pts < self._shown
        if not self.goes_on or self._late is None:
            return False
        is_early = self._early_lack_stamps and dts is None if pts is None else pts < self._late
        self.goes_on = (pts is None or is_early) and place - self._first < _LEADING
        return is_early


def _place(first: VideoFrame, packets: Sequence[Packet]) -> int | None:
    """Which of the packets brought this frame; None: nothing tells."""
    if first.pts is not None:
        stamped = (place for place, packet in enumerate(packets) if packet.pts == first.pts)
        return next(stamped, None)
    keys = (place for place, packet in enumerate(packets) if packet.is_keyframe)
    key = next(keys, None)
    return key if key is not None and first.key_frame and packets[key].pts is None else None
