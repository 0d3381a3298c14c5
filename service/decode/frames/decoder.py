"""The decoder: finds the frame shown at each time that a plan asks for, and fills the plan's units with them.

Memory does not grow with the video: one frame is held, and one unit of each grid is being filled.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.container import open_container
from tubelet.service.decode.demux.hwaccel import accelerator
from tubelet.service.decode.demux.packet_stats import KeyFrameIndex
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.demux.timestamps import Timeline
from tubelet.service.decode.frames.lookahead import UnreliableTimestamps
from tubelet.service.decode.frames.selection import FrameSelector, RequestedTimes, TimedFrame, all_frames
from tubelet.service.decode.frames.unit_assembler import (
    KeyFrameSnap,
    NoSnap,
    Slots,
    UnitAssembler,
    frame_requests,
)
from tubelet.service.decode.limits import Limits
from tubelet.service.decode.pixels.rgb_converter import RgbConverter
from tubelet.service.decode.probe.metadata import metadata_from_stats
from tubelet.service.decode.probe.probe import Track
from tubelet.service.decode.probe.stream_head import OpenStream
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import NS_PER_S, DecodeSummary, PixelFormat, VideoMetadata

_Strategy = Callable[[OpenStream, UnitAssembler], int | None]


@dataclass(frozen=True, slots=True)
class Job:
    """A video to decode; ``fast`` takes key frames near the requested times and skips the loop filter."""

    source: ByteSource
    track: Track
    plan: Plan
    pixel_format: PixelFormat
    fast: bool
    limits: Limits

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
        job.pixel_format, job.track.aspect, {grid.crop for grid in job.plan.grids}, job.track.cropping
    )
    with closing(UnitAssembler(job.plan, snap, converter.convert, slots)) as assembler:
        return replace(_decode(job, assembler, snap, heartbeat), max_frame_offset_ns=snap.max_offset_ns)


def _decode(
    job: Job, assembler: UnitAssembler, snap: NoSnap | KeyFrameSnap, heartbeat: Callable[[], None]
) -> DecodeSummary:
    """Try each decoding strategy in turn, until one does not fail for unreliable timestamps."""
    track, plan = job.track, job.plan
    open_stream = track.handover.take()
    header_stream = open_stream if track.is_header_only else None
    if open_stream is not None and job.fast and header_stream is None:
        open_stream.stream.close()  # its decoder has the loop filter on, which cannot be changed any more
        open_stream = None
    decoded = 0
    for strategy in _strategies(job, snap):
        if open_stream is None:
            open_stream = job.open(heartbeat)
            if header_stream is not None and header_stream.head is not None:
                open_stream.stream.recount_without(header_stream.head.leading_packets, ())
        with open_stream.stream as stream:
            try:
                end_ns = strategy(open_stream, assembler)
                if end_ns is not None and open_stream is header_stream:
                    _check_not_truncated(stream)
            except UnreliableTimestamps:
                assembler.drop()
                open_stream = None
                continue
            finally:
                decoded += stream.decoder.frames
            metadata = track.metadata
            if header_stream is not None:
                metadata = _metadata_from_all_packets(header_stream, stream, job, end_ns)
            warnings: list[str] = []
            if end_ns is None or not plan.fits(metadata.duration_ns):
                end_ns = metadata.duration_ns
            else:
                end_ns, warnings = _finish(assembler, plan, track.timeline, metadata.duration_ns, end_ns)
            return DecodeSummary(end_ns, decoded, (*stream.decoder.warnings(), *warnings), metadata)
    raise AssertionError("unreachable: decoding every frame never raises UnreliableTimestamps")


def _check_not_truncated(header_stream: Stream) -> None:
    """Check that a stream that was read as its bytes arrived is complete.

    Such a stream cannot go back, but an mp4's index may point to bytes that have been passed.

    Raises:
        UnreliableTimestamps: a packet lies before the last one, or is missing.
    """
    if header_stream.is_truncated and "mp4" in header_stream.container.format.name:
        raise UnreliableTimestamps("a streamed mp4 needs bytes that were passed")


def _metadata_from_all_packets(
    header_stream: OpenStream, stream: Stream, job: Job, end_ns: int | None
) -> VideoMetadata:
    """Return the metadata of a video of which only the header was known; reads the packets left."""
    if end_ns is None:  # an open plan ends later than the video, whose duration is still unknown
        stream.read_to_end()
    assert header_stream.head is not None
    return metadata_from_stats(stream, header_stream.head, stream.stats)


def _strategies(job: Job, snap: NoSnap | KeyFrameSnap) -> Iterator[_Strategy]:
    """Yield decoding strategies, the cheapest first; all but the last may raise ``UnreliableTimestamps``."""
    track = job.track
    if track.key_frames is not None:
        yield partial(_decode_selected, track, track.key_frames, job.plan, snap)
    # decoding from the middle gives no metadata
    if track.has_independent_key_frames and not track.is_header_only:
        yield partial(_decode_from_seek, track)
    yield partial(_decode_all, track)


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
