"""The walk through a video: each wanted time gets the frame that is shown then, frames become units.

Memory does not grow with the video: one frame is held, and a unit of each grid around it is being filled.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from tubelet.service.decode.demux.byte_source import Source
from tubelet.service.decode.demux.container import open_container
from tubelet.service.decode.demux.hwaccel import accelerator
from tubelet.service.decode.demux.packet_stats import KeyFrames
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.demux.timestamps import Timeline
from tubelet.service.decode.frames.lookahead import Disorder
from tubelet.service.decode.frames.selection import Selection, Shown, WantedTimes, all_frames
from tubelet.service.decode.frames.unit_assembler import Assembly, Exact, Slots, Snap, wanted_frames
from tubelet.service.decode.limits import Limits
from tubelet.service.decode.pixels.rgb_converter import Painter
from tubelet.service.decode.probe.metadata import metadata_of
from tubelet.service.decode.probe.probe import Track
from tubelet.service.decode.probe.stream_head import Opening
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.types.plan import Plan
from tubelet.service.types.video import NS_PER_S, DecodeSummary, PixelFormat, VideoMetadata

_Walk = Callable[[Opening, Assembly], int | None]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be decoded; ``fast`` takes key frames near the wanted times, and blocks unsmoothed."""

    source: Source
    track: Track
    plan: Plan
    pixel_format: PixelFormat
    fast: bool
    limits: Limits

    def open(self, pulse: Callable[[], None]) -> Opening:
        """From its beginning, once it is known how large the file is, so that it can be read in any order."""
        self.source.wait_for_size()
        container = open_container(self.source, accelerator(self.limits.hardware))
        number, clusters = self.track.stream_index, self.track.clusters
        return Opening(Stream(container, number, self.limits, pulse, unsmoothed=self.fast, clusters=clusters))


def decode(job: Job, slots: Slots, pulse: Callable[[], None]) -> DecodeSummary:
    """Announce the plan's units as they end; ``pulse`` is called for each packet.

    A video that ends early cuts the plan; one that ends before the plan begins is corrupt. Where the whole
    plan is served before the video ends, the rest is not decoded and the probe's duration stands. With an
    open plan, all of the video is walked through, which tells its metadata; for one that turns out to be
    shorter than a window it does not hold, and the last units do not come.

    Raises:
        VideoRejected: CORRUPT_VIDEO, VIDEO_TOO_LARGE, UNSUPPORTED_VIDEO.
    """
    keys, timeline = job.track.keys, job.track.timeline
    snap = Snap(keys, timeline) if job.fast and keys is not None else Exact()
    painter = Painter(
        job.pixel_format, job.track.aspect, {grid.crop for grid in job.plan.grids}, job.track.cropping
    )
    with closing(Assembly(job.plan, snap, painter.paint, slots)) as assembly:
        return replace(_decode(job, assembly, snap, pulse), max_frame_offset_ns=snap.worst_ns)


def _decode(job: Job, assembly: Assembly, snap: Exact | Snap, pulse: Callable[[], None]) -> DecodeSummary:
    track, plan = job.track, job.plan
    opening = track.handover.take()
    front = opening if track.is_front else None
    if opening is not None and job.fast and front is None:
        opening.stream.close()  # its blocks are smoothed, which cannot be changed any more
        opening = None
    decoded = 0
    for walk in _walks(job, snap):
        if opening is None:
            opening = job.open(pulse)
            if front is not None and front.head is not None:
                opening.stream.leave_out(front.head.lead.afresh(), ())
        with opening.stream as stream:
            try:
                end_ns = walk(opening, assembly)
                if end_ns is not None and opening is front:
                    _check_end(stream)
            except Disorder:
                assembly.let_go()
                opening = None
                continue
            finally:
                decoded += stream.frames
            metadata = track.metadata
            if front is not None:
                metadata = _learned(front, stream, job, end_ns)
            warnings: list[str] = []
            if end_ns is None or not plan.fits(metadata.duration_ns):
                end_ns = metadata.duration_ns
            else:
                end_ns, warnings = _finish(assembly, plan, track.timeline, metadata.duration_ns, end_ns)
            return DecodeSummary(end_ns, decoded, (*stream.warnings(), *warnings), metadata)
    raise AssertionError("the last walk takes frames in whatever order they come")


def _check_end(front: Stream) -> None:
    """Bytes were taken as they came; an mp4's index may lead back to those that went by.

    Raises:
        Disorder: the next packet lies before the last one, or is missing.
    """
    if front.broke_off and "mp4" in front.container.format.name:
        raise Disorder("the file breaks off for those who cannot go back in it")


def _learned(front: Opening, stream: Stream, job: Job, end_ns: int | None) -> VideoMetadata:
    """What all packets say of a video of which the front was known."""
    if end_ns is None:  # an open plan goes on for as long as a video may last: how long does this one?
        while stream.read() is not None:
            pass
    assert front.head is not None
    return metadata_of(stream, front.head, stream.tally, job.source.wait_for_size(), job.limits)


def _walks(job: Job, snap: Exact | Snap) -> Iterator[_Walk]:
    """The ways to find the frames, the cheapest first; all but the last raise Disorder where they cannot."""
    track = job.track
    if track.keys is not None:
        yield partial(_walk_selected, track, track.keys, job.plan, snap)
    if track.has_clean_keys and not track.is_front:  # a walk from the middle tells no metadata
        yield partial(_walk_from_seek, track)
    yield partial(_walk_all, track)


def _walk_selected(
    track: Track, keys: KeyFrames, plan: Plan, snap: Exact | Snap, opening: Opening, assembly: Assembly
) -> int | None:
    """Decode what the wanted times need; what comes out must be what the packets promised."""
    wanted = wanted_frames(lambda: plan, snap)
    ticks = WantedTimes(track.timeline.to_ticks(each.time_ns) for each in wanted)
    selection = Selection(opening, track.timeline, keys, ticks)

    def check(pts: int | None) -> None:
        if selection.promised() != pts:
            raise Disorder("another frame comes than the packets promised")

    end_ns = _serve(selection.frames(), assembly, check)
    if assembly.held is None:  # a place to begin at may promise a picture that is whole only later
        raise Disorder("no frame comes, where packets promised some")
    if ticks.next is not None:
        return end_ns
    while assembly.wanted is not None:
        if assembly.wanted.time_ns >= track.metadata.duration_ns and not track.is_front:
            return end_ns
        check(assembly.held.pts)
        assembly.fill()
    return None


def _walk_from_seek(track: Track, opening: Opening, assembly: Assembly) -> int | None:
    """All frames from the first wanted time on, where the container's index leads there."""
    assert assembly.wanted is not None
    start_ns = assembly.wanted.time_ns
    if start_ns <= 0 or not opening.stream.seek(track.timeline.to_ticks(start_ns)):
        raise Disorder("nothing to seek")
    opening.stream.skip_to_key()
    frames = _sound_at_first(all_frames(opening, track.timeline), opening.stream)
    first = next(frames, None)
    if first is None or first.start_ns > start_ns:
        raise Disorder("the index is wrong, or there is no key frame before")
    key = opening.stream.tally.first_key
    if key is not None and first.pts is not None and first.pts > key.pts:
        raise Disorder("a place to begin at gives no picture")
    return _serve(chain((first,), frames), assembly, _trust)


def _sound_at_first(frames: Iterator[Shown], stream: Stream) -> Iterator[Shown]:
    """Up to the second key frame, what is damaged is made up from frames that were not decoded here.

    Raises:
        Disorder: there is damage before that.
    """
    keys = 0
    for shown in frames:
        keys += shown.frame.key_frame
        if keys < 2 and stream.is_damaged:
            raise Disorder("what is damaged is made up from what comes before")
        yield shown


def _walk_all(track: Track, opening: Opening, assembly: Assembly) -> int | None:
    return _serve(all_frames(opening, track.timeline), assembly, _trust)


def _trust(pts: int | None) -> None:
    pass


def _serve(frames: Iterable[Shown], assembly: Assembly, check: Callable[[int | None], None]) -> int | None:
    """Fill until the plan (None) or the frames (when the last one ends) are through."""
    end_ns = 0
    for shown in frames:
        while (
            assembly.held is not None
            and assembly.wanted is not None
            and assembly.wanted.time_ns < shown.start_ns
        ):
            check(assembly.held.pts)
            assembly.fill()
        if assembly.wanted is None:
            return None
        assembly.hold(shown.frame)
        end_ns = max(end_ns, shown.end_ns)
    return end_ns


def _finish(
    assembly: Assembly, plan: Plan, timeline: Timeline, duration_ns: int, end_ns: int
) -> tuple[int, list[str]]:
    """Serve what is still wanted by the last frame, in a plan cut to where frames end: there, warnings."""
    if assembly.held is None:
        raise VideoRejected("CORRUPT_VIDEO", "not one frame of the range asked for can be decoded")
    warnings = []
    frame_ns = timeline.to_ns(timeline.origin + timeline.frame_ticks)
    if abs(end_ns - duration_ns) <= frame_ns:
        end_ns = duration_ns  # a difference in how long the last frame lasts cuts no window off
    elif end_ns < duration_ns:
        warnings.append(f"decoded frames end at {end_ns / NS_PER_S:.3f} s of {duration_ns / NS_PER_S:.3f} s")
    rest = plan.cut(end_ns)
    if rest is None:
        raise VideoRejected(
            "CORRUPT_VIDEO", f"frames end at {end_ns / NS_PER_S:.3f} s, before the range asked for"
        )
    assembly.finish(rest)
    return end_ns, warnings
