"""Statistics of a stream's packets: their number, the time they span, and the key frames."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
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


class PacketStats:
    """Statistics of packets added in decoding order; ``leading_packets`` yield no frame and do not count."""

    def __init__(self, leading_packets: LeadingPackets | None = None) -> None:
        self.packets = 0  # excluding leading ones and those that an edit list cuts away
        self.packets_read = 0  # every packet, counted or not
        self.leading_count = 0  # leading packets
        self.is_frame_count_exact = True  # False: an estimate
        self.corrupt_packets = 0
        self.is_encrypted = False  # at least one key frame is
        self.has_timestamps = False  # at least one packet has a timestamp
        # Timestamps are complete and rise, so that they tell which frame is shown when.
        self.has_reliable_timestamps = True
        self.has_b_frame_delay = False  # some packet's PTS differs from its DTS
        self.first: int | None = None  # ticks: the first packet's timestamp
        self.earliest: int | None = None
        self.latest: int | None = None
        self.end = 0  # ticks: the end of the packet shown last
        self._known_key_frames = KnownKeyFrames()
        self.key_frames: KeyFrameIndex = self._known_key_frames
        self._leading_packets = leading_packets
        self.may_have_more_leading = leading_packets is not None  # the next packet may be a leading one
        self._last_dts: int | None = None
        self._last_key_pts: int | None = None

    @classmethod
    def from_endpoints(
        cls, head: "PacketStats", tail: "PacketStats", key_frames: KeyFrameIndex, packets: int
    ) -> "PacketStats":
        """Combine statistics of the first packets (``head``) and the last ones (``tail``)."""
        stats = cls()
        stats.packets, stats.corrupt_packets = packets, head.corrupt_packets + tail.corrupt_packets
        stats.is_encrypted = head.is_encrypted or tail.is_encrypted
        stats.has_timestamps, stats.has_reliable_timestamps = (
            True,
            head.has_reliable_timestamps and tail.has_reliable_timestamps,
        )
        stats.has_b_frame_delay = head.has_b_frame_delay or tail.has_b_frame_delay
        stats.first, stats.earliest = head.first, head.earliest
        stats.latest, stats.end = tail.latest, tail.end
        stats.key_frames = key_frames
        return stats

    @property
    def first_key_frame(self) -> KeyFrame | None:
        """The first key frame that was added."""
        return self._known_key_frames.first

    def add(self, packet: Packet) -> None:
        """Count the next packet in decoding order."""
        pts, dts = packet.pts, packet.dts
        if packet.is_keyframe:
            self._add_key_frame(pts, dts)
            self.is_encrypted |= is_encrypted(packet)
        self._check_timestamps(pts, dts)
        self.has_b_frame_delay |= pts != dts
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
        self.has_timestamps = True
        if self.first is None:
            self.first = ticks
        if self.earliest is None or ticks < self.earliest:
            self.earliest = ticks
        if self.latest is None or ticks >= self.latest:
            self.latest = ticks
            self.end = ticks + max(packet.duration or 0, 0)

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
            self._known_key_frames.add(KeyFrame(pts, pts if dts is None else dts, self.packets_read))

    def _check_timestamps(self, pts: int | None, dts: int | None) -> None:
        """Record whether a packet's timestamps are present, rise, and agree with each other."""
        before = self._last_dts
        if pts is None or (dts is None and before is not None):
            self.has_reliable_timestamps = False
        elif dts is not None:
            if pts < dts or (before is not None and dts <= before):
                self.has_reliable_timestamps = False
            self._last_dts = dts
