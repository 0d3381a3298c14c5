"""What the packets of a stream say of it: how many there are, what they span, where decoding can begin."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from av.packet import Packet

from tubelet.service.decode.demux.encryption import is_encrypted
from tubelet.service.decode.demux.leading_packets import Lead


class Key(NamedTuple):
    """A packet at which decoding can begin."""

    pts: int  # ticks
    dts: int  # ticks, that of showing where there is none
    number: int  # packets before it


class KeyFrames(Protocol):
    """Those of a stream."""

    def before(self, ticks: int) -> Key | None:
        """The last one that is shown at that time or earlier."""
        ...

    def after(self, ticks: int) -> Key | None:
        """The first one that is shown later."""
        ...

    def close(self) -> None:
        """Nobody will ask for any more."""
        ...


class Keys:
    """``KeyFrames`` that are all known, in the order of time; a few bytes each."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._pts = array("q")
        self._dts = array("q")
        self._numbers = array("q")
        for key in keys:
            self.add(key)

    def __len__(self) -> int:
        return len(self._pts)

    @property
    def first(self) -> Key | None:
        return self._at(0)

    def add(self, key: Key) -> None:
        self._pts.append(key.pts)
        self._dts.append(key.dts)
        self._numbers.append(key.number)

    def before(self, ticks: int) -> Key | None:
        return self._at(bisect_right(self._pts, ticks) - 1)

    def after(self, ticks: int) -> Key | None:
        return self._at(bisect_right(self._pts, ticks))

    def close(self) -> None:
        pass

    def _at(self, place: int) -> Key | None:
        if not 0 <= place < len(self):
            return None
        return Key(self._pts[place], self._dts[place], self._numbers[place])


class Tally:
    """Counts packets in the order of decoding; those of the ``lead`` bring no frames and do not count."""

    def __init__(self, lead: Lead | None = None) -> None:
        self.packets = 0  # that are shown
        self.read = 0  # all packets
        self.leading = 0  # those that bring no frames
        self.is_counted = True  # False: that many there should be, for all that is known
        self.corrupt = 0
        self.is_encrypted = False  # in part: a key frame at least
        self.is_timed = False  # at least one has a time stamp
        self.is_sound = True  # stamps are all there and rise, so that they tell which frame is shown when
        self.reorders = False  # one at least is shown at another time than it is decoded at
        self.first: int | None = None  # ticks, of the first packet that has any
        self.earliest: int | None = None
        self.latest: int | None = None
        self.end = 0  # ticks, the end of the latest packet
        self._known_keys = Keys()
        self.keys: KeyFrames = self._known_keys
        self._lead = lead
        self._last_dts: int | None = None
        self._last_key: int | None = None

    @classmethod
    def of_ends(cls, head: "Tally", tail: "Tally", keys: KeyFrames, packets: int) -> "Tally":
        """Of so many packets, of which the first and the last have been read."""
        tally = cls()
        tally.packets, tally.corrupt = packets, head.corrupt + tail.corrupt
        tally.is_encrypted = head.is_encrypted or tail.is_encrypted
        tally.is_timed, tally.is_sound = True, head.is_sound and tail.is_sound
        tally.reorders = head.reorders or tail.reorders
        tally.first, tally.earliest = head.first, head.earliest
        tally.latest, tally.end = tail.latest, tail.end
        tally.keys = keys
        return tally

    @property
    def may_lead(self) -> bool:
        """Whether the next packet may be one of the lead."""
        return self._lead is not None and self._lead.goes_on

    @property
    def first_key(self) -> Key | None:
        """Of the packets that were added."""
        return self._known_keys.first

    def add(self, packet: Packet) -> None:
        pts, dts = packet.pts, packet.dts
        if packet.is_keyframe:
            self._add_key(pts, dts)
            self.is_encrypted |= is_encrypted(packet)
        self._check(pts, dts)
        self.reorders |= pts != dts
        self.read += 1
        is_leading = self._lead is not None and self._lead.has(pts, dts)
        if packet.is_discard:  # an edit list has cut it away; it decodes, but is not shown
            return
        if is_leading:
            self.leading += 1
            return
        self.packets += 1
        self.corrupt += packet.is_corrupt
        ticks = dts if pts is None else pts
        if ticks is None:
            return
        self.is_timed = True
        if self.first is None:
            self.first = ticks
        if self.earliest is None or ticks < self.earliest:
            self.earliest = ticks
        if self.latest is None or ticks >= self.latest:
            self.latest = ticks
            self.end = ticks + max(packet.duration or 0, 0)

    def _add_key(self, pts: int | None, dts: int | None) -> None:
        if pts is None or (self._last_key is not None and pts <= self._last_key):
            self.is_sound = False
        else:
            self._last_key = pts
            self._known_keys.add(Key(pts, pts if dts is None else dts, self.read))

    def _check(self, pts: int | None, dts: int | None) -> None:
        before = self._last_dts
        if pts is None or (dts is None and before is not None):
            self.is_sound = False
        elif dts is not None:
            if pts < dts or (before is not None and dts <= before):
                self.is_sound = False
            self._last_dts = dts
