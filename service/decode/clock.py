"""When a frame is shown: time stamps of a stream -> nanoseconds from its first presented frame, exactly."""

from dataclasses import dataclass
from fractions import Fraction

from service.values import NS_PER_S


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
