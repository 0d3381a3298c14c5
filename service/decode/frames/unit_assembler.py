"""Assembly of a plan's units from decoded frames."""

from collections.abc import Callable, Iterator
from heapq import merge
from itertools import count, takewhile
from typing import NamedTuple, Protocol

import numpy as np
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.packet_stats import KeyFrameIndex
from tubelet.service.decode.demux.timestamps import Timeline
from tubelet.service.decode.frames.thumbnail_sampler import ThumbnailSampler
from tubelet.service.decode.pixels.rgb_converter import RgbPicture
from tubelet.service.types.plan import Plan


class NoSnap:
    """Exact sampling: leaves each requested time as it is."""

    max_offset_ns = 0

    def __call__(self, time_ns: int, tolerance_ns: int, earliest_ns: int) -> int:
        """Return ``time_ns``."""
        return time_ns


class KeyFrameSnap:
    """Approximate sampling: moves each requested time to a near key frame, and keeps their order.

    ``max_offset_ns`` is the largest distance that a time was moved.
    """

    def __init__(self, keys: KeyFrameIndex, timeline: Timeline) -> None:
        self.max_offset_ns = 0
        self._keys = keys
        self._timeline = timeline

    def __call__(self, time_ns: int, tolerance_ns: int, earliest_ns: int) -> int:
        """Return the time of the nearest key frame within ``tolerance_ns``, or else ``time_ns``.

        Key frames before ``earliest_ns`` do not count.
        """
        ticks = self._timeline.to_ticks(time_ns)
        around = (self._keys.at_or_before(ticks), self._keys.after(ticks))
        times = [self._timeline.to_ns(key.pts) for key in around if key is not None]
        allowed = [time for time in times if time >= earliest_ns]
        nearest = min(allowed, key=lambda time: abs(time - time_ns), default=time_ns)
        if not 0 < abs(nearest - time_ns) <= tolerance_ns:
            return time_ns
        self.max_offset_ns = max(self.max_offset_ns, abs(nearest - time_ns))
        return nearest


class Slots(Protocol):
    """The memory for units: one slot of shared memory for each."""

    def acquire(self) -> tuple[int, np.ndarray]:
        """Wait for a free slot; return its number and its memory, (t, H, W, 3) uint8 at least."""
        ...

    def announce(self, grid: int, unit: int, slot: int) -> None:
        """Announce that ``unit`` of ``grid`` is complete in ``slot``."""
        ...


class FrameRequest(NamedTuple):
    """A request for one frame of a unit; sorts by time, then by grid."""

    time_ns: int
    grid: int
    unit: int
    frame: int


def frame_requests(plan: Callable[[], Plan], snap: NoSnap | KeyFrameSnap) -> Iterator[FrameRequest]:
    """Yield the plan's requests by time; ``plan`` is called each time, since it may be cut meanwhile."""
    number = 0
    while number < len(plan().grids):
        views = plan().views(number)
        yield from merge(*(_grid_requests(plan, view, snap) for view in views))
        number = views.stop


def _grid_requests(
    plan: Callable[[], Plan], number: int, snap: NoSnap | KeyFrameSnap
) -> Iterator[FrameRequest]:
    """Yield the requests of one grid of the plan."""
    grid = plan().grids[number]
    # So that each frame still comes from its own part of the window, and none from before the range.
    tolerance_ns = grid.frame_spacing_ns // 2
    for unit in takewhile(lambda unit: plan().has(number, unit), count()):
        for frame in range(grid.frames_per_unit):
            time_ns = snap(grid.frame_time_ns(unit, frame), tolerance_ns, grid.first_ns)
            yield FrameRequest(time_ns, number, unit, frame)


class UnitAssembler:
    """A writer of frames into units: the held frame is written once for each request that it serves.

    It offers each frame to ``thumbnails``, too.

    A complete unit is announced only when another frame is written after it. If the video ends a moment
    before the unit does, the plan is cut to that end and the unit is not in it.
    """

    def __init__(
        self,
        plan: Plan,
        snap: NoSnap | KeyFrameSnap,
        convert: Callable[[VideoFrame], RgbPicture],
        slots: Slots,
        thumbnails: ThumbnailSampler,
    ) -> None:
        self._plan = plan
        self._convert = convert
        self._slots = slots
        self._thumbnails = thumbnails
        self._times = frame_requests(lambda: self._plan, snap)
        self._frame: VideoFrame | None = None
        self._picture: RgbPicture | None = None  # the held frame as RGB, once it was requested
        # by grid: slot and memory of the unit being filled
        self._open_units: dict[int, tuple[int, np.ndarray]] = {}
        self._finished: tuple[int, int, int] | None = None  # to be announced: grid, unit, slot
        self.next_request: FrameRequest | None = next(self._times)

    @property
    def held(self) -> VideoFrame | None:
        """The last frame, which serves all requests until the next one."""
        return self._frame

    def hold(self, frame: VideoFrame) -> None:
        """Replace the held frame."""
        self._frame, self._picture = frame, None
        self._thumbnails.next_frame()

    def drop(self) -> None:
        """Drop the held frame, which was wrong."""
        self._frame = self._picture = None

    def close(self) -> None:
        """Drop every reference to the slots' memory, also those in a reference cycle through the requests."""
        self.drop()
        self._open_units.clear()
        self._times = iter(())

    def write_held(self) -> None:
        """Write the held frame into the unit of the next request, and go on to the one after."""
        assert self.next_request is not None
        assert self._frame is not None
        self._announce_finished()
        time_ns, number, unit, frame = self.next_request
        if frame == 0:
            self._open_units[number] = self._slots.acquire()
        slot, memory = self._open_units[number]
        if self._picture is None:
            self._picture = self._convert(self._frame)
        grid = self._plan.grids[number]
        memory[frame] = self._picture.crop(grid.crop)
        self._thumbnails.offer(self._frame, time_ns)
        if frame == grid.frames_per_unit - 1:
            del self._open_units[number]
            self._finished = number, unit, slot
            if unit == grid.num_units - 1:
                self._announce_finished()
        self.next_request = next(self._times, None)

    def finish(self, rest: Plan) -> None:
        """Serve all requests that are left in ``rest``, the plan cut to where the video ended."""
        self._plan = rest
        while self.next_request is not None:
            if rest.has(self.next_request.grid, self.next_request.unit):
                self.write_held()
            else:
                self.next_request = next(self._times, None)
        if self._finished is not None and rest.has(*self._finished[:2]):
            self._announce_finished()

    def _announce_finished(self) -> None:
        """Announce the unit that is complete, if there is one."""
        if self._finished is not None:
            self._slots.announce(*self._finished)
        self._finished = None
