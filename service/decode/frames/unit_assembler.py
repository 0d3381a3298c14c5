"""Frames become the units of a plan: the frame that is held goes wherever it is wanted."""

from collections.abc import Callable, Iterator
from heapq import merge
from itertools import count, takewhile
from typing import NamedTuple, Protocol

import numpy as np
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.packet_stats import KeyFrames
from tubelet.service.decode.demux.timestamps import Timeline
from tubelet.service.decode.pixels.rgb_converter import Picture
from tubelet.service.types.plan import Plan


class Exact:
    """Every time as it is wanted."""

    worst_ns = 0

    def __call__(self, time_ns: int, tolerance_ns: int) -> int:
        return time_ns


class Snap:
    """The nearest key frame's time if that is near enough; ``worst_ns`` is how far a time was moved at most.

    Times keep their order.
    """

    def __init__(self, keys: KeyFrames, timeline: Timeline) -> None:
        self.worst_ns = 0
        self._keys = keys
        self._timeline = timeline

    def __call__(self, time_ns: int, tolerance_ns: int) -> int:
        ticks = self._timeline.to_ticks(time_ns)
        around = (self._keys.before(ticks), self._keys.after(ticks))
        times = [self._timeline.to_ns(key.pts) for key in around if key is not None]
        nearest = min(times, key=lambda time: abs(time - time_ns), default=time_ns)
        if not 0 < abs(nearest - time_ns) <= tolerance_ns or nearest < 0:
            return time_ns
        self.worst_ns = max(self.worst_ns, abs(nearest - time_ns))
        return nearest


class Slots(Protocol):
    """Where units go: a slot of shared memory each."""

    def acquire(self) -> tuple[int, np.ndarray]:
        """Wait for a free slot: its number and its memory, (t, H, W, 3) uint8 at least."""
        ...

    def announce(self, grid: int, unit: int, slot: int) -> None: ...


class Wanted(NamedTuple):
    """A frame of a unit. Sorted by time, then by grid."""

    time_ns: int
    grid: int
    unit: int
    frame: int


def wanted_frames(plan: Callable[[], Plan], snap: Exact | Snap) -> Iterator[Wanted]:
    """All that a plan wants, by time; it is asked for again each time, since it may be cut meanwhile."""
    number = 0
    while number < len(plan().grids):
        views = plan().views(number)
        yield from merge(*(_wanted_of(plan, view, snap) for view in views))
        number = views.stop


def _wanted_of(plan: Callable[[], Plan], number: int, snap: Exact | Snap) -> Iterator[Wanted]:
    grid = plan().grids[number]
    tolerance_ns = grid.frame_spacing_ns // 2  # each frame still stands for its own part of the window
    for unit in takewhile(lambda unit: plan().has(number, unit), count()):
        for frame in range(grid.frames_per_unit):
            yield Wanted(snap(grid.frame_time_ns(unit, frame), tolerance_ns), number, unit, frame)


class Assembly:
    """The held frame goes into the units that are being filled, once for each time it is wanted.

    A unit is announced when the frames go on after it: one whose frames are all there, of a video that ends a
    moment before the unit does, is not in the plan that is cut to that end.
    """

    def __init__(
        self, plan: Plan, snap: Exact | Snap, paint: Callable[[VideoFrame], Picture], slots: Slots
    ) -> None:
        self._plan = plan
        self._paint = paint
        self._slots = slots
        self._times = wanted_frames(lambda: self._plan, snap)
        self._frame: VideoFrame | None = None
        self._picture: Picture | None = None  # the held frame, when it has been wanted
        self._slot_of: dict[int, tuple[int, np.ndarray]] = {}  # by grid: where its unit is being filled
        self._kept: tuple[int, int, int] | None = None  # what is to be announced: grid, unit, slot
        self.wanted: Wanted | None = next(self._times)

    @property
    def held(self) -> VideoFrame | None:
        return self._frame

    def hold(self, frame: VideoFrame) -> None:
        self._frame, self._picture = frame, None

    def let_go(self) -> None:
        """The held frame was a mistake."""
        self._frame = self._picture = None

    def close(self) -> None:
        """Refer to the slots' memory no more, least of all in a circle through the times to come."""
        self.let_go()
        self._slot_of.clear()
        self._times = iter(())

    def fill(self) -> None:
        """Serve the wanted time with the held frame, and go on to the next time."""
        assert self.wanted is not None
        assert self._frame is not None
        self._announce_kept()
        _, number, unit, frame = self.wanted
        if frame == 0:
            self._slot_of[number] = self._slots.acquire()
        slot, memory = self._slot_of[number]
        if self._picture is None:
            self._picture = self._paint(self._frame)
        grid = self._plan.grids[number]
        memory[frame] = self._picture.cut(grid.crop)
        if frame == grid.frames_per_unit - 1:
            del self._slot_of[number]
            self._kept = number, unit, slot
            if unit == grid.num_units - 1:
                self._announce_kept()
        self.wanted = next(self._times, None)

    def finish(self, rest: Plan) -> None:
        """The video is through: serve all that is wanted still, by a plan cut to where it ended."""
        self._plan = rest
        while self.wanted is not None:
            if rest.has(self.wanted.grid, self.wanted.unit):
                self.fill()
            else:
                self.wanted = next(self._times, None)
        if self._kept is not None and rest.has(*self._kept[:2]):
            self._announce_kept()

    def _announce_kept(self) -> None:
        if self._kept is not None:
            self._slots.announce(*self._kept)
        self._kept = None
