"""When a frame is shown: time stamps of a stream -> nanoseconds from its first presented frame, exactly."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from av.format import ContainerFormat, Flags
from av.packet import Packet

from tubelet.service.types.video import NS_PER_S


@dataclass(frozen=True, slots=True)
class Timeline:
    """How the ticks of one stream become time, found by the probe.

    An untimed stream (raw H.264) has no time stamps at all: its frames follow each other at one rate.
    """

    time_base: Fraction  # seconds in a tick
    origin: int  # ticks, where the first presented frame is
    frame_ticks: int  # how long a frame lasts when nothing says it
    timed: bool

    def to_ns(self, ticks: int) -> int:
        """Nanoseconds from the origin, rounded up: so ``to_ns(ticks) <= t`` says exactly "shown at t"."""
        scaled = (ticks - self.origin) * self.time_base.numerator * NS_PER_S
        return -(-scaled // self.time_base.denominator)

    def to_ticks(self, ns: int) -> int:
        """The last tick at or before a time."""
        return self.origin + ns * self.time_base.denominator // (self.time_base.numerator * NS_PER_S)


class Clock:
    """The times of frames in the order of output, from time stamps that may be absent or wrong.

    Presentation stamps count unless they go backward more often than decoding stamps do: the rule of
    ``guess_correct_pts`` in FFmpeg's libavcodec/decode.c, whose result PyAV does not show.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._faulty_pts = 0
        self._faulty_dts = 0
        self._next = timeline.origin  # ticks, where the frame before ends

    def show(self, pts: int | None, dts: int | None, duration: int) -> tuple[int, int]:
        """The next frame's stamps and duration in ticks -> [start, end) in nanoseconds."""
        ticks = self._best(pts, dts) if self._timeline.timed else None
        start = self._next if ticks is None else ticks
        lasts = duration if duration > 0 and self._timeline.timed else self._timeline.frame_ticks
        self._next = start + lasts
        return self._timeline.to_ns(start), self._timeline.to_ns(self._next)

    def _best(self, pts: int | None, dts: int | None) -> int | None:
        if dts is not None:
            self._faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (self._faulty_pts <= self._faulty_dts or dts is None):
            return pts
        return dts


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


class Ratio(Protocol):
    @property
    def numerator(self) -> int: ...
    @property
    def denominator(self) -> int: ...


def exact(ratio: Ratio | None) -> Fraction | None:
    """None for one that is not set or is no number: 0/1, 0/0, 1/0, for which PyAV before 19 has None too."""
    if ratio is None or not ratio.numerator or not ratio.denominator:
        return None
    return Fraction(ratio.numerator, ratio.denominator)
