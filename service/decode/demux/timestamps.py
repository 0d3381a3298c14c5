"""Conversion of a stream's timestamps to nanoseconds after its first presented frame."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from av.format import ContainerFormat, Flags
from av.packet import Packet

from tubelet.service.types.video import NS_PER_S


@dataclass(frozen=True, slots=True)
class Timeline:
    """The mapping from the ticks of one stream to time, found by the probe.

    A stream without timestamps (raw H.264) is not ``timed``: its frames follow each other at a constant rate.
    """

    time_base: Fraction  # seconds per tick
    origin: int  # ticks: the first presented frame
    frame_ticks: int  # a frame's duration if nothing states it
    timed: bool

    def to_ns(self, ticks: int) -> int:
        """Return nanoseconds from the origin, rounded up, so that ``to_ns(ticks) <= t`` means shown at t."""
        scaled = (ticks - self.origin) * self.time_base.numerator * NS_PER_S
        return -(-scaled // self.time_base.denominator)

    def to_ticks(self, ns: int) -> int:
        """Return the last tick at or before ``ns`` nanoseconds from the origin."""
        return self.origin + ns * self.time_base.denominator // (self.time_base.numerator * NS_PER_S)


class FrameClock:
    """The display times of frames in output order, from timestamps that may be absent or wrong.

    PTS are used unless they go backward more often than DTS do: the rule of ``guess_correct_pts`` in FFmpeg's
    libavcodec/decode.c, whose result PyAV does not expose.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._faulty_pts = 0
        self._faulty_dts = 0
        self._next = timeline.origin  # ticks: the end of the previous frame

    def interval(self, pts: int | None, dts: int | None, duration: int) -> tuple[int, int]:
        """Return the [start, end) of the next frame in nanoseconds, from its timestamps in ticks."""
        ticks = self._choose_timestamp(pts, dts) if self._timeline.timed else None
        start = self._next if ticks is None else ticks
        lasts = duration if duration > 0 and self._timeline.timed else self._timeline.frame_ticks
        self._next = start + lasts
        return self._timeline.to_ns(start), self._timeline.to_ns(self._next)

    def _choose_timestamp(self, pts: int | None, dts: int | None) -> int | None:
        """Return the PTS or DTS of the next frame, whichever has gone backward less often."""
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


DISCONTINUITY_S = 10
_MAX_BACKWARD_S = Fraction(1, 10)


def allows_discontinuities(container: ContainerFormat) -> bool:
    """Whether timestamps in this format may jump: it has no index, and seeks go by DTS (MPEG-TS)."""
    return bool(container.flags & Flags.ts_discont.value)


class DiscontinuityRepair:
    """A shift of packet timestamps that makes time continue across jumps, in decoding order."""

    def __init__(self, container: ContainerFormat, time_base: Fraction | None) -> None:
        self.count = 0
        self._max_forward: int | None = None  # the format's timestamps do not jump
        self._max_backward = 0  # ticks
        self._shift = 0  # ticks
        self._next: int | None = None  # ticks: expected timestamp of the next packet
        if allows_discontinuities(container) and time_base is not None:
            self._max_forward, self._max_backward = (
                int(DISCONTINUITY_S / time_base),
                int(_MAX_BACKWARD_S / time_base),
            )

    def repair(self, packet: Packet) -> None:
        """Shift the timestamps of ``packet`` in place, and start a new shift if they jump."""
        ticks = packet.pts if packet.dts is None else packet.dts
        if self._max_forward is None or ticks is None:
            return
        if self._next is not None:
            off = ticks + self._shift - self._next
            if off > self._max_forward or off < -self._max_backward:
                self._shift = self._next - ticks
                self.count += 1
        self._next = ticks + self._shift + max(packet.duration or 0, 0)
        if self._shift:
            packet.pts = None if packet.pts is None else packet.pts + self._shift
            packet.dts = None if packet.dts is None else packet.dts + self._shift


class Ratio(Protocol):
    """A rational number of PyAV, which may be invalid."""

    @property
    def numerator(self) -> int: ...
    @property
    def denominator(self) -> int: ...


def to_fraction(ratio: Ratio | None) -> Fraction | None:
    """Convert ``ratio``; None if it is unset or invalid (0/1, 0/0, 1/0), as PyAV 19 does by itself."""
    if ratio is None or not ratio.numerator or not ratio.denominator:
        return None
    return Fraction(ratio.numerator, ratio.denominator)
