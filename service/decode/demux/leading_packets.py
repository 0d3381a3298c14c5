"""Packets at the front of a stream that yield no frame, because the frames they refer to are missing.

A recording that was cut may begin between two key frames, or at the key frame of an open GOP (H.264, HEVC,
MPEG-2), whose leading pictures refer to the GOP before.
"""

from collections.abc import Sequence
from copy import copy
from itertools import count

from av.packet import Packet
from av.video.frame import VideoFrame

_MAX_LEADING_PICTURES = 64  # more pictures than this before a key frame means that timestamps are wrong


class LeadingPackets:
    """A check that tells, packet by packet, which ones at the front of a stream yield no frame.

    Frames come out in display order, so these are the packets that would be shown before ``first``, the first
    frame that came out. ``packets`` are all that were read until then. A packet is leading if it is shown
    less than ``slack`` ticks after ``first``: some writers shift timestamps so that none is below the first
    one's. With ``early_packets_lack_timestamps``, packets from before the stream's time zero have none.
    ``may_continue`` says whether more leading packets may follow.
    """

    def __init__(
        self, first: VideoFrame, packets: Sequence[Packet], slack: int, *, early_packets_lack_timestamps: bool
    ) -> None:
        self._first_shown = first.dts if first.pts is None else first.pts
        self._shown_by = None if self._first_shown is None else self._first_shown + slack
        self._early_lack_timestamps = early_packets_lack_timestamps and first.pts is not None
        self._first = _index_of(first, packets)
        self._first_is_key = self._first is not None and packets[self._first].is_keyframe
        self._reset()

    def _reset(self) -> None:
        """Start again at the first packet of the stream."""
        self._indices = count()
        self.may_continue = self._first_is_key and self._first_shown is not None

    def restarted(self) -> "LeadingPackets":
        """Return a copy for reading the stream from its beginning once more."""
        again = copy(self)
        again._reset()
        return again

    def is_next_leading(self, pts: int | None, dts: int | None) -> bool:
        """Whether the next packet is leading; call it for every packet of the stream, in order."""
        index = next(self._indices)
        if self._first is None or index == self._first:
            return False
        if index < self._first:
            return (
                self._first_is_key
                if pts is None
                else self._first_shown is not None and pts < self._first_shown
            )
        if not self.may_continue or self._shown_by is None:
            return False
        is_early = self._early_lack_timestamps and dts is None if pts is None else pts < self._shown_by
        self.may_continue = (pts is None or is_early) and index - self._first < _MAX_LEADING_PICTURES
        return is_early


def _index_of(first: VideoFrame, packets: Sequence[Packet]) -> int | None:
    """Return the index of the packet that yielded the frame ``first``; None if nothing tells."""
    if first.pts is not None:
        stamped = (index for index, packet in enumerate(packets) if packet.pts == first.pts)
        return next(stamped, None)
    keys = (index for index, packet in enumerate(packets) if packet.is_keyframe)
    key = next(keys, None)
    return key if key is not None and first.key_frame and packets[key].pts is None else None
