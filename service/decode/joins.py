"""Time stamps that jump: recordings that were put one behind the other, an encoder that began anew.

As the ffmpeg program does it for formats whose clocks may do so, MPEG-TS, MPEG-PS and Ogg, where a jump of
more than ten seconds is a join (its option -dts_delta_threshold), and a step back of more than a tenth of a
second.
"""

from fractions import Fraction

from av.format import ContainerFormat, Flags
from av.packet import Packet

JUMP_S = 10
_BACK_S = Fraction(1, 10)


def has_loose_clock(container: ContainerFormat) -> bool:
    """Each packet tells its time by itself: there is no index, and a place is found by decoding stamps."""
    return bool(container.flags & Flags.ts_discont.value)


class Joins:
    """Moves the stamps of packets, in the order of decoding, so that time goes on at each join."""

    def __init__(self, container: ContainerFormat, time_base: Fraction | None) -> None:
        self.found = 0
        self._jump: int | None = None  # ticks; None: the format's stamps do not jump
        self._back = 0  # ticks
        self._moved = 0  # ticks
        self._next: int | None = None  # ticks, where the next packet is expected
        if has_loose_clock(container) and time_base is not None:
            self._jump, self._back = int(JUMP_S / time_base), int(_BACK_S / time_base)

    def mend(self, packet: Packet) -> None:
        ticks = packet.pts if packet.dts is None else packet.dts
        if self._jump is None or ticks is None:
            return
        if self._next is not None:
            off = ticks + self._moved - self._next
            if off > self._jump or off < -self._back:
                self._moved = self._next - ticks
                self.found += 1
        self._next = ticks + self._moved + max(packet.duration or 0, 0)
        if self._moved:
            packet.pts = None if packet.pts is None else packet.pts + self._moved
            packet.dts = None if packet.dts is None else packet.dts + self._moved
