"""The decoder: finds the frame shown at each time that a plan asks for, and fills the plan's units with them.

Memory does not grow with the video: one frame is held, and one unit of each grid is being filled.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from tubelet.models.spec import Preprocessing
from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.container import open_container
from tubelet.service.decode.demux.hwaccel import accelerator
from tubelet.service.decode.demux.packet_stats import KeyFrameIndex
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.demux.timestamps import Timeline
from tubelet.service.decode.frames.lookahead import UnreliableTimestamps
from tubelet.service.decode.frames.selection import FrameSelector, RequestedTimes, TimedFrame, all_frames
from tubelet.service.decode.frames.thumbnail_sampler import ThumbnailSampler
from tubelet.service.decode.frames.unit_assembler import (
    KeyFrameSnap,
    NoSnap,
    Slots,
    UnitAssembler,
    frame_requests,
)
from tubelet.service.decode.limits import Limits
from tubelet.service.decode.pixels.rgb_converter import RgbConverter
from tubelet.service.decode.pixels.thumbnail import ThumbnailEncoder
from tubelet.service.decode.probe.metadata import metadata_from_stats
from tubelet.service.decode.probe.probe import Track
from tubelet.service.decode.probe.stream_head import OpenStream
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import NS_PER_S, DecodeSummary

_Strategy = Callable[[OpenStream, UnitAssembler], int | None]


@dataclass(frozen=True, slots=True)
class Job:
    """A video to decode; ``fast`` takes key frames near the requested times and skips the loop filter.

    ``thumbnails`` is the most thumbnails to make of its frames.
    """

    source: ByteSource
    track: Track
    plan: Plan
    preprocessing: Preprocessing
    fast: bool
    limits: Limits
    thumbnails: int = 0

    def open(self, heartbeat: Callable[[], None]) -> OpenStream:
        """Open the video at its beginning; waits for the file's size, so that it can be read in any order."""
        self.source.wait_for_size()
        container = open_container(self.source, accelerator(self.limits.hardware))
        number = self.track.stream_index
        return OpenStream(Stream(container, number, self.limits, heartbeat, skip_loop_filter=self.fast))


def decode(job: Job, slots: Slots, heartbeat: Callable[[], None]) -> DecodeSummary:
    """Decode ``job`` and announce each unit of its plan in ``slots``.

    ``heartbeat`` is called for each packet.

    If the video ends early, the plan is cut; if it ends before the plan begins, it is corrupt. If the plan is
    complete before the video ends, the rest is not decoded and the probe's duration stands. With an open
    plan, all packets are read, which gives the video's metadata. If the video turns out to be shorter than a
    window, the plan does not fit and its last units are missing.

    Raises:
        VideoRejected: CORRUPT_VIDEO, VIDEO_TOO_LARGE, UNSUPPORTED_VIDEO.
    """
    keys, timeline = job.track.key_frames, job.track.timeline
    snap = KeyFrameSnap(keys, timeline) if job.fast and keys is not None else NoSnap()
    converter = RgbConverter(
        job.preprocessing, job.track.aspect, {grid.crop for grid in job.plan.grids}, job.track.cropping
    )
    encoder = ThumbnailEncoder(job.track.aspect, job.track.cropping)
    sampler = ThumbnailSampler(job.thumbnails, _num_frames(job), encoder.encode)
    with closing(UnitAssembler(job.plan, snap, converter.convert, slots, sampler)) as assembler:
        summary = _decode(job, assembler, snap, heartbeat)
    return replace(summary, max_frame_offset_ns=snap.max_offset_ns, thumbnails=sampler.thumbnails)


def _num_frames(job: Job) -> int:
    """Return how many frames of the job will be requested; for an unbounded plan, what the header implies."""
    if job.plan.is_unbounded:
        return job.track.metadata.duration_ns // job.plan.grids[0].frame_spacing_ns
    return job.plan.num_frames


def _decode(
    job: Job, assembler: UnitAssembler, snap: NoSnap | KeyFrameSnap, heartbeat: Callable[[], None]
) -> DecodeSummary:
    """Try each decoding strategy in turn, until one does not fail for unreliable timestamps."""
    attempts = _Attempts(job, assembler, heartbeat)
    *cheap, last = _strategies(job, snap)
    for strategy in cheap:
        with suppress(UnreliableTimestamps):
            return attempts.run(strategy)
        assembler.drop()
    return attempts.run(last)


def _strategies(job: Job, snap: NoSnap | KeyFrameSnap) -> list[_Strategy]:
    """Return decoding strategies, the cheapest first; all but the last may raise ``UnreliableTimestamps``."""
    track = job.track
    decode_all: _Strategy = partial(_decode_all, track)
    strategies: list[_Strategy] = []
    if track.key_frames is not None:
        strategies.append(partial(_decode_selected, track, track.key_frames, job.plan, snap))
    if track.is_header_only:  # decoding from the middle gives no metadata
        strategies.append(decode_all)
    elif track.has_independent_key_frames:
        strategies.append(partial(_decode_from_seek, track))
    return [*strategies, decode_all]


class _Attempts:
    """Attempts to decode a job: the first one from the stream that the probe left open, if there is one."""

    def __init__(self, job: Job, assembler: UnitAssembler, heartbeat: Callable[[], None]) -> None:
        self._job = job
        self._assembler = assembler
        self._heartbeat = heartbeat
        self._decoded = 0  # frames, in all attempts
        self._open_stream = job.track.handover.take()
        # If only the header is known, what the probe read of the stream.
        self._head = self._open_stream.head if self._open_stream and job.track.is_header_only else None
        if self._open_stream is not None and job.fast and self._head is None:
            self._open_stream.stream.close()  # its decoder's loop filter is on and cannot be changed
            self._open_stream = None

    def run(self, strategy: _Strategy) -> DecodeSummary:
        """Decode with ``strategy``.

        Raises:
            UnreliableTimestamps: the strategy fails for this video.
        """
        open_stream, self._open_stream = self._open_stream or self._open(), None
        with open_stream.stream as stream:
            try:
                end_ns = strategy(open_stream, self._assembler)
            finally:
                self._decoded += stream.decoder.frames
            if self._head is not None and end_ns is not None and open_stream.head is not None:
                _check_not_truncated(stream)
            return self._summary(stream, end_ns)

    def _open(self) -> OpenStream:
        """Open the video at its beginning."""
        opened = self._job.open(self._heartbeat)
        if self._head is not None:
            opened.stream.recount_without(self._head.leading_packets, ())
        return opened

    def _summary(self, stream: Stream, end_ns: int | None) -> DecodeSummary:
        """Sum up an attempt that completed the plan (``end_ns`` is None) or came to the end of the frames."""
        track, plan, metadata = self._job.track, self._job.plan, self._job.track.metadata
        if self._head is not None:
            if end_ns is None:  # an open plan ends later than the video, whose duration is still unknown
                stream.read_to_end()
            metadata = metadata_from_stats(stream, self._head, stream.stats)
        warnings: list[str] = []
        if end_ns is None or not plan.fits(metadata.duration_ns):
            end_ns = metadata.duration_ns
        else:
            end_ns, warnings = _finish(self._assembler, plan, track.timeline, metadata.duration_ns, end_ns)
        return DecodeSummary(end_ns, self._decoded, (*stream.decoder.warnings(), *warnings), metadata)


def _check_not_truncated(stream: Stream) -> None:
    """Check that a stream that was read as its bytes arrived is complete.

    Such a stream cannot go back, but an mp4's index may point to bytes that have been passed.

    Raises:
        UnreliableTimestamps: a packet lies before the last one, or is missing.
    """
    if stream.is_truncated and "mp4" in stream.container.format.name:
        raise UnreliableTimestamps("a streamed mp4 needs bytes that were passed")


def _decode_selected(
    track: Track,
    keys: KeyFrameIndex,
    plan: Plan,
    snap: NoSnap | KeyFrameSnap,
    open_stream: OpenStream,
    assembler: UnitAssembler,
) -> int | None:
    """Decode only the packets that the requested frames need, and check each frame against its packet."""
    wanted = frame_requests(lambda: plan, snap)
    ticks = RequestedTimes(track.timeline.to_ticks(each.time_ns) for each in wanted)
    selection = FrameSelector(open_stream, track.timeline, keys, ticks)

    def check(pts: int | None) -> None:
        """Check that the frame for the next request is the one that its packet announced."""
        if selection.expected_pts() != pts:
            raise UnreliableTimestamps("a frame differs from the one that its packet announced")

    end_ns = _fill_from(selection.frames(), assembler, check)
    if assembler.held is None:  # an entry point may announce a picture that is complete only later
        raise UnreliableTimestamps("packets announced frames, but none came")
    if ticks.next is not None:
        return end_ns
    while assembler.next_request is not None:
        if assembler.next_request.time_ns >= track.metadata.duration_ns and not track.is_header_only:
            return end_ns
        check(assembler.held.pts)
        assembler.write_held()
    return None


def _decode_from_seek(track: Track, open_stream: OpenStream, assembler: UnitAssembler) -> int | None:
    """Seek to the key frame before the first request, and decode every frame from there.

    Returns as ``_fill_from`` does.

    Raises:
        UnreliableTimestamps: the seek is impossible, or leads to a wrong frame.
    """
    assert assembler.next_request is not None
    start_ns = assembler.next_request.time_ns
    if start_ns <= 0:
        raise UnreliableTimestamps("the first request is at the start, where no seek is needed")
    if not open_stream.stream.seek(track.timeline.to_ticks(start_ns)):
        raise UnreliableTimestamps("the container cannot seek to the first request")
    open_stream.stream.skip_to_key_frame()
    frames = _checked_until_second_key_frame(all_frames(open_stream, track.timeline), open_stream.stream)
    first = next(frames, None)
    if first is None or first.start_ns > start_ns:
        raise UnreliableTimestamps("the seek found no frame at or before the requested time")
    key = open_stream.stream.counter.key_frames.first
    if key is not None and first.pts is not None and first.pts > key.pts:
        raise UnreliableTimestamps("the key frame yields no frame")
    return _fill_from(chain((first,), frames), assembler, _accept_any)


def _checked_until_second_key_frame(frames: Iterator[TimedFrame], stream: Stream) -> Iterator[TimedFrame]:
    """Yield ``frames``, checked for damage until the second key frame.

    A decoder conceals damage there with frames before the seek, which were not decoded.

    Raises:
        UnreliableTimestamps: there is damage.
    """
    keys = 0
    for shown in frames:
        keys += shown.frame.key_frame
        if keys < 2 and stream.decoder.has_errors:
            raise UnreliableTimestamps("damage is concealed with frames that were not decoded")
        yield shown


def _decode_all(track: Track, open_stream: OpenStream, assembler: UnitAssembler) -> int | None:
    """Decode every frame from the beginning."""
    return _fill_from(all_frames(open_stream, track.timeline), assembler, _accept_any)


def _accept_any(pts: int | None) -> None:
    """Accept any frame: the check of strategies that decode every frame."""


def _fill_from(
    frames: Iterable[TimedFrame], assembler: UnitAssembler, check: Callable[[int | None], None]
) -> int | None:
    """Fill units from ``frames`` in order; return None if the plan is complete, else where the frames end."""
    end_ns = 0
    for shown in frames:
        while (
            assembler.held is not None
            and assembler.next_request is not None
            and assembler.next_request.time_ns < shown.start_ns
        ):
            check(assembler.held.pts)
            assembler.write_held()
        if assembler.next_request is None:
            return None
        assembler.hold(shown.frame)
        end_ns = max(end_ns, shown.end_ns)
    return end_ns


def _finish(
    assembler: UnitAssembler, plan: Plan, timeline: Timeline, duration_ns: int, end_ns: int
) -> tuple[int, list[str]]:
    """Cut the plan to the end of the frames, and serve its remaining requests from the last frame.

    Returns the end and warnings.
    """
    if assembler.held is None:
        raise VideoRejected("CORRUPT_VIDEO", "no frame of the requested time range could be decoded")
    warnings = []
    frame_ns = timeline.to_ns(timeline.origin + timeline.frame_ticks)
    if abs(end_ns - duration_ns) <= frame_ns:
        end_ns = duration_ns  # a difference in the last frame's duration cuts off no window
    elif end_ns < duration_ns:
        warnings.append(f"decoded frames end at {end_ns / NS_PER_S:.3f} s of {duration_ns / NS_PER_S:.3f} s")
    rest = plan.cut(end_ns)
    if rest is None:
        raise VideoRejected(
            "CORRUPT_VIDEO", f"frames end at {end_ns / NS_PER_S:.3f} s, before the requested time range"
        )
    assembler.finish(rest)
    return end_ns, warnings
