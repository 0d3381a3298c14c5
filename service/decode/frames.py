"""The walk through a video: each wanted time gets the frame that is shown then, frames become units.

Memory does not grow with the video: one frame is held, and a unit of each grid around it is being filled.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from itertools import count, takewhile
from typing import NamedTuple, Protocol

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from service.decode.clock import Clock
from service.decode.container import MEDIA_ERRORS, Upload, is_end, open_container, packets, video_streams
from service.decode.pixels import Painter, Picture
from service.decode.probe import Limits, Track, check_frames, check_pixels
from service.decode.protocol import Refusal
from service.plan import Plan
from service.values import NS_PER_S, DecodeEnd, PixelFormat


class Slots(Protocol):
    """Where units go: a slot of shared memory each."""

    def acquire(self) -> tuple[int, np.ndarray]:
        """Wait for a free slot: its number and its memory, (t, H, W, 3) uint8 at least."""
        ...

    def announce(self, grid: int, unit: int, slot: int) -> None: ...


class _Wanted(NamedTuple):
    """Sorted by time, then by grid."""

    time_ns: int
    grid: int
    unit: int
    frame: int


@dataclass(slots=True)
class _Shown:
    """A decoded frame and when it is shown."""

    frame: VideoFrame
    start_ns: int
    end_ns: int


def decode(
    upload: Upload,
    track: Track,
    plan: Plan,
    pixel_format: PixelFormat,
    limits: Limits,
    slots: Slots,
    pulse: Callable[[], None],
) -> DecodeEnd:
    """Announce the plan's units as they end; ``pulse`` is called for each packet.

    A video that ends early cuts the plan; one that ends before the plan begins is corrupt. Where the whole
    plan is served before the video ends, the rest is not decoded and the probe's duration stands.

    Raises:
        Refusal: CORRUPT_VIDEO, VIDEO_TOO_LARGE, UNSUPPORTED_VIDEO.
    """
    start_ns = plan.grids[0].first_ns
    source = _Source(upload, track, limits, pulse)
    assembly = _Assembly(plan, Painter(pixel_format, source.aspect), slots)
    try:
        end_ns = _walk(source, assembly, start_ns)
        if end_ns is None:
            return DecodeEnd(track.facts.duration_ns, source.frames, tuple(source.warnings()))
        return _finish(source, assembly, plan, track, end_ns)
    finally:
        source.close()


def _walk(source: "_Source", assembly: "_Assembly", start_ns: int) -> int | None:
    """Serve wanted times until the plan (None) or the video (when its last frame ends) is through."""
    end_ns = 0
    for shown in source.shown_from(start_ns):
        check_pixels(shown.frame.width, shown.frame.height, source.limits)
        while assembly.wanted is not None and assembly.wanted.time_ns < shown.start_ns and assembly.held:
            assembly.fill()
        if assembly.wanted is None:
            return None
        assembly.hold(shown.frame)
        end_ns = max(end_ns, shown.end_ns)
    return end_ns


def _finish(source: "_Source", assembly: "_Assembly", plan: Plan, track: Track, end_ns: int) -> DecodeEnd:
    if not assembly.held:
        raise Refusal("CORRUPT_VIDEO", "not one frame of the range asked for can be decoded")
    warnings = source.warnings()
    frame_ns = track.timeline.to_ns(track.timeline.origin + track.timeline.frame_ticks)
    if abs(end_ns - track.facts.duration_ns) <= frame_ns:
        end_ns = track.facts.duration_ns  # a difference in how long the last frame lasts cuts no window off
    elif end_ns < track.facts.duration_ns:
        warnings.append(
            f"decoded frames end at {end_ns / NS_PER_S:.3f} s of {track.facts.duration_ns / NS_PER_S:.3f} s"
        )
    rest = plan.cut(end_ns)
    if rest is None:
        raise Refusal("CORRUPT_VIDEO", f"frames end at {end_ns / NS_PER_S:.3f} s, before the range asked for")
    assembly.finish(rest)
    return DecodeEnd(end_ns, source.frames, tuple(warnings))


class _Assembly:
    """The held frame goes into the units that are being filled, once for each time it is wanted."""

    def __init__(self, plan: Plan, painter: Painter, slots: Slots) -> None:
        self._plan = plan
        self._painter = painter
        self._slots = slots
        self._times = self._wanted_times()
        self._frame: VideoFrame | None = None
        self._picture: Picture | None = None  # the held frame, when it has been wanted
        self._slot_of: dict[int, tuple[int, np.ndarray]] = {}  # by grid: where its unit is being filled
        self.wanted: _Wanted | None = next(self._times)

    @property
    def held(self) -> bool:
        return self._frame is not None

    def hold(self, frame: VideoFrame) -> None:
        self._frame, self._picture = frame, None

    def fill(self) -> None:
        """Serve the wanted time with the held frame, and go on to the next time."""
        assert self.wanted is not None
        assert self._frame is not None
        _, number, unit, frame = self.wanted
        if frame == 0:
            self._slot_of[number] = self._slots.acquire()
        slot, memory = self._slot_of[number]
        if self._picture is None:
            self._picture = self._painter.paint(self._frame)
        grid = self._plan.grids[number]
        memory[frame] = self._picture.cut(grid.crop)
        if frame == grid.frames_per_unit - 1:
            del self._slot_of[number]
            self._slots.announce(number, unit, slot)
        self.wanted = next(self._times, None)

    def finish(self, rest: Plan) -> None:
        """The video is through: serve all that is wanted still, by a plan cut to where it ended."""
        self._plan = rest
        while self.wanted is not None:
            if rest.has(self.wanted.grid, self.wanted.unit):
                self.fill()
            else:
                self.wanted = next(self._times, None)

    def _wanted_times(self) -> Iterator[_Wanted]:
        number = 0
        while number < len(self._plan.grids):
            views = self._plan.views(number)
            yield from merge(*(self._times_of(view) for view in views))
            number = views.stop

    def _times_of(self, number: int) -> Iterator[_Wanted]:
        grid = self._plan.grids[number]
        # Asked each time, since the plan may be cut meanwhile.
        for unit in takewhile(lambda unit: self._plan.has(number, unit), count()):
            for frame in range(grid.frames_per_unit):
                yield _Wanted(grid.frame_time_ns(unit, frame), number, unit, frame)


class _Source:
    """The frames of the track in the order of output; damage is counted and skipped."""

    def __init__(self, upload: Upload, track: Track, limits: Limits, pulse: Callable[[], None]) -> None:
        self.limits = limits
        self.frames = 0
        self._upload = upload
        self._track = track
        self._pulse = pulse
        self._failed_packets = 0
        self._corrupt_frames = 0
        self._container, self._stream = self._open()

    @property
    def aspect(self) -> Fraction | None:
        return self._stream.sample_aspect_ratio

    def shown_from(self, start_ns: int) -> Iterator[_Shown]:
        """From the frame that is shown at ``start_ns``, or from an earlier one, to the video's end."""
        if start_ns > 0 and self._track.timeline.timed and self._seek(start_ns):
            frames = self._shown()
            first = next(frames, None)
            if first is not None and first.start_ns <= start_ns:
                yield first
                yield from frames
                return
            # The index is wrong or there is no key frame before: all of it, then.
            self._failed_packets = self._corrupt_frames = 0
            self.close()
            self._container, self._stream = self._open()
        yield from self._shown()

    def warnings(self) -> list[str]:
        warnings = []
        if self._failed_packets:
            warnings.append(f"{self._failed_packets} packets could not be decoded")
        if self._corrupt_frames:
            warnings.append(f"{self._corrupt_frames} of {self.frames} frames are damaged")
        return warnings

    def close(self) -> None:
        self._container.close()

    def _open(self) -> tuple[InputContainer, VideoStream]:
        container = open_container(self._upload)
        for stream in video_streams(container):
            if stream.index == self._track.stream_index:
                context = stream.codec_context
                context.options = {"max_pixels": str(self.limits.max_pixels)}
                context.thread_count = self.limits.threads
                context.thread_type = "AUTO"
                return container, stream
        raise Refusal("CORRUPT_VIDEO", "the video's stream is gone on second reading")

    def _seek(self, start_ns: int) -> bool:
        try:
            ticks = self._track.timeline.to_ticks(start_ns)
            self._container.seek(ticks, stream=self._stream, backward=True)
        except MEDIA_ERRORS:
            return False
        return True

    def _shown(self) -> Iterator[_Shown]:
        clock = Clock(self._track.timeline)
        for frame in self._decoded():
            self.frames += 1
            self._corrupt_frames += frame.is_corrupt
            check_frames(self.frames, self.limits)
            start_ns, end_ns = clock.show(frame.pts, frame.dts, frame.duration or 0)
            yield _Shown(frame, start_ns, end_ns)

    def _decoded(self) -> Iterator[VideoFrame]:
        for packet in packets(self._container, [self._stream]):
            self._pulse()
            # An empty packet repeats a frame, but would end the decoder.
            if packet is None or packet.size or is_end(packet):
                yield from self._decode(packet)

    def _decode(self, packet: Packet | None) -> list[VideoFrame]:
        try:
            return self._stream.decode(packet)
        except MemoryError:
            raise
        except MEDIA_ERRORS:
            self._failed_packets += 1
            return []
