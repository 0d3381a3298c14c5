"""Statistics of a stream's packets: their number, the time they span, and the key frames."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from av.packet import Packet

from tubelet.service.decode.demux.encryption import is_encrypted
from tubelet.service.decode.demux.leading_packets import LeadingPackets


class KeyFrame(NamedTuple):
    """A packet at which decoding can begin."""

    pts: int  # ticks
    dts: int  # ticks; the PTS if the packet has no DTS
    packet_index: int  # number of packets before it


class KeyFrameIndex(Protocol):
    """The key frames of a stream, searchable by time."""

    def at_or_before(self, ticks: int) -> KeyFrame | None:
        """Return the last key frame that is shown at or before ``ticks``."""
        ...

    def after(self, ticks: int) -> KeyFrame | None:
        """Return the first key frame that is shown after ``ticks``."""
        ...

    def close(self) -> None:
        """Release the file that the index may hold open."""
        ...


class KnownKeyFrames:
    """A ``KeyFrameIndex`` in memory, sorted by time, of a few bytes for each key frame."""

    def __init__(self, key_frames: Iterable[KeyFrame] = ()) -> None:
        self._pts = array("q")
        self._dts = array("q")
        self._numbers = array("q")
        for key in key_frames:
            self.add(key)

    def __len__(self) -> int:
        return len(self._pts)

    @property
    def first(self) -> KeyFrame | None:
        """The first key frame."""
        return self._at(0)

    def add(self, key: KeyFrame) -> None:
        """Append a key frame, which must be later than all others."""
        self._pts.append(key.pts)
        self._dts.append(key.dts)
        self._numbers.append(key.packet_index)

    def at_or_before(self, ticks: int) -> KeyFrame | None:
        """Return the last key frame that is shown at or before ``ticks``."""
        return self._at(bisect_right(self._pts, ticks) - 1)

    def after(self, ticks: int) -> KeyFrame | None:
        """Return the first key frame that is shown after ``ticks``."""
        return self._at(bisect_right(self._pts, ticks))

    def close(self) -> None:
        """Do nothing: no file is open."""

    def _at(self, index: int) -> KeyFrame | None:
        """Return the key frame at ``index``; None outside the list."""
        if not 0 <= index < len(self):
            return None
        return KeyFrame(self._pts[index], self._dts[index], self._numbers[index])


@dataclass(frozen=True, slots=True)
class PacketStats:
    """Statistics of packets, in decoding order. Times are ticks.

    Packets that yield no frame (``leading_count``) and those that an edit list cuts away do not count.
    """

    packets: int
    key_frames: KeyFrameIndex
    leading_count: int
    corrupt_packets: int
    is_encrypted: bool  # at least one key frame is
    has_reliable_timestamps: bool  # complete and rising, so that they tell which frame is shown when
    has_b_frame_delay: bool  # some packet's PTS differs from its DTS
    lacks_pts: bool  # some packet has none
    earliest: int | None  # None if no packet has a timestamp
    latest: int | None
    end: int  # the end of the packet shown last
    is_end_stated: bool  # a PTS after the DTS states that time
    is_frame_count_exact: bool = True  # False: an estimate

    def joined_with(
        self, tail: "PacketStats", key_frames: KeyFrameIndex, packets: int, *, is_exact: bool
    ) -> "PacketStats":
        """Return the statistics of a stream of which these are the first packets and ``tail`` the last."""
        return replace(
            self,
            packets=packets,
            key_frames=key_frames,
            corrupt_packets=self.corrupt_packets + tail.corrupt_packets,
            is_encrypted=self.is_encrypted or tail.is_encrypted,
            has_reliable_timestamps=self.has_reliable_timestamps and tail.has_reliable_timestamps,
            has_b_frame_delay=self.has_b_frame_delay or tail.has_b_frame_delay,
            lacks_pts=self.lacks_pts or tail.lacks_pts,
            latest=tail.latest,
            end=tail.end,
            is_end_stated=tail.is_end_stated,
            is_frame_count_exact=is_exact,
        )


class PacketCounter:
    """A counter of packets, added in decoding order; ``leading_packets`` yield no frame and do not count."""

    def __init__(self, leading_packets: LeadingPackets | None = None) -> None:
        self.packets = self.leading_count = self.corrupt_packets = 0
        self.packets_read = 0  # counted or not
        self.is_encrypted = self.has_b_frame_delay = self.lacks_pts = False
        self.has_reliable_timestamps = True
        self.first: int | None = None  # the first packet's timestamp
        self.earliest: int | None = None
        self.latest: int | None = None
        self.end = 0
        self.is_end_stated = False
        self.key_frames = KnownKeyFrames()
        self.may_have_more_leading = leading_packets is not None  # the next packet may be a leading one
        self._leading_packets = leading_packets
        self._last_dts: int | None = None
        self._last_key_pts: int | None = None

    def stats(self) -> PacketStats:
        """Return the statistics of the packets added so far; only their key frames go on to grow."""
        return PacketStats(
            packets=self.packets,
            key_frames=self.key_frames,
            leading_count=self.leading_count,
            corrupt_packets=self.corrupt_packets,
            is_encrypted=self.is_encrypted,
            has_reliable_timestamps=self.has_reliable_timestamps,
            has_b_frame_delay=self.has_b_frame_delay,
            lacks_pts=self.lacks_pts,
            earliest=self.earliest,
            latest=self.latest,
            end=self.end,
            is_end_stated=self.is_end_stated,
        )

    def add(self, packet: Packet) -> None:
        """Count the next packet in decoding order."""
        pts, dts = packet.pts, packet.dts
        if packet.is_keyframe:
            self._add_key_frame(pts, dts)
            self.is_encrypted |= is_encrypted(packet)
        self._check_timestamps(pts, dts)
        self.has_b_frame_delay |= pts != dts
        self.lacks_pts |= pts is None
        is_leading = self._is_leading(pts, dts)
        self.packets_read += 1
        if packet.is_discard:  # cut away by an edit list: decoded but not shown
            return
        if is_leading:
            self.leading_count += 1
            return
        self.packets += 1
        self.corrupt_packets += packet.is_corrupt
        ticks = dts if pts is None else pts
        if ticks is None:
            return
        if self.first is None:
            self.first = ticks
        if self.earliest is None or ticks < self.earliest:
            self.earliest = ticks
        if self.latest is None or ticks >= self.latest:
            self.latest = ticks
            self.end = ticks + max(packet.duration or 0, 0)
            self.is_end_stated = pts is not None and pts != dts

    def _is_leading(self, pts: int | None, dts: int | None) -> bool:
        """Whether the packet that is being added is a leading one."""
        rule, index = self._leading_packets, self.packets_read
        if rule is None or not self.may_have_more_leading:
            return False
        is_leading = rule.includes(index, pts, dts)
        self.may_have_more_leading = rule.may_go_on(index, pts, is_leading=is_leading)
        return is_leading

    def _add_key_frame(self, pts: int | None, dts: int | None) -> None:
        """Record a key frame, and whether its timestamp rises."""
        if pts is None or (self._last_key_pts is not None and pts <= self._last_key_pts):
            self.has_reliable_timestamps = False
        else:
            self._last_key_pts = pts
            self.key_frames.add(KeyFrame(pts, pts if dts is None else dts, self.packets_read))

    def _check_timestamps(self, pts: int | None, dts: int | None) -> None:
        """Record whether a packet's timestamps are present, rise, and agree with each other."""
        before = self._last_dts
        if pts is None or (dts is None and before is not None):
            self.has_reliable_timestamps = False
        elif dts is not None:
            if pts < dts or (before is not None and dts <= before):
                self.has_reliable_timestamps = False
            self._last_dts = dts
