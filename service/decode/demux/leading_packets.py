"""Packets at the front of a stream that yield no frame, because the frames they refer to are missing.

A recording that was cut may begin between two key frames, or at the key frame of an open GOP (H.264, HEVC,
MPEG-2), whose leading pictures refer to the GOP before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from av.packet import Packet
from av.video.frame import VideoFrame

_MAX_LEADING_PICTURES = 64  # more pictures than this before a key frame means that timestamps are wrong


@dataclass(frozen=True, slots=True)
class LeadingPackets:
    """A rule that tells which packets at the front of a stream yield no frame.

    Packet number ``first_index`` is the first one that yields a frame. If that is a key frame, no packet
    before it does. Frames come out in display order, so the packets after it that would be shown before
    ``first_pts`` + ``slack`` ticks are leading, too: some writers shift timestamps so that none is below the
    first one's. With ``early_packets_lack_timestamps``, packets from before the stream's time zero have none.
    """

    first_index: int
    is_first_key: bool
    first_pts: int | None = None  # None: all leading packets come before ``first_index``
    slack: int = 0
    early_packets_lack_timestamps: bool = False

    def includes(self, index: int, pts: int | None, dts: int | None) -> bool:
        """Whether packet number ``index`` is leading, if those after ``first_index`` up to it are."""
        if index < self.first_index and self.is_first_key:
            return True
        if index == self.first_index or self.first_pts is None:
            return False
        if index < self.first_index:
            return pts is not None and pts < self.first_pts
        if pts is None:
            return self.early_packets_lack_timestamps and dts is None
        return pts < self.first_pts + self.slack

    def may_go_on(self, index: int, pts: int | None, *, is_leading: bool) -> bool:
        """Whether packets after number ``index`` may be leading, if those after ``first_index`` were."""
        if index < self.first_index:
            return True
        if not self.is_first_key or self.first_pts is None:
            return False
        is_between = index == self.first_index or pts is None or is_leading
        return is_between and index - self.first_index < _MAX_LEADING_PICTURES


def first_packets(count: int) -> LeadingPackets:
    """Return the rule that the first ``count`` packets are leading."""
    return LeadingPackets(count, is_first_key=True)


def packets_shown_before(
    first: VideoFrame, packets: Sequence[Packet], slack: int, *, early_packets_lack_timestamps: bool
) -> LeadingPackets:
    """Return the rule for a stream whose ``first`` frame, which has a PTS, came out of ``packets``."""
    for index, packet in enumerate(packets):
        if packet.pts == first.pts:
            return LeadingPackets(index, packet.is_keyframe, first.pts, slack, early_packets_lack_timestamps)
    return first_packets(0)  # nothing tells which packet yielded the frame
