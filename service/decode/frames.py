"""The walk through a video: each wanted time gets the frame that is shown then, frames become units.

Memory does not grow with the video: one frame is held, and a unit of each grid around it is being filled.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

from service.decode.assembly import Assembly, Slots, wanted_frames
from service.decode.container import Upload, open_container
from service.decode.limits import Limits
from service.decode.lookahead import Disorder
from service.decode.pixels import Painter
from service.decode.probe import Track
from service.decode.protocol import Refusal
from service.decode.shown import Selection, Shown, WantedTimes, all_frames
from service.decode.stream import Stream
from service.decode.tally import Keys
from service.plan import Plan
from service.values import NS_PER_S, DecodeEnd, PixelFormat

_Walk = Callable[[Stream, Assembly], int | None]


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
    painter = Painter(pixel_format, track.aspect)
    assembly = Assembly(plan, painter.paint, slots)
    decoded = 0
    for walk in _walks(track, plan):
        with Stream(open_container(upload), track.stream_index, limits, pulse) as stream:
            try:
                end_ns = walk(stream, assembly)
            except Disorder:
                assembly.let_go()
                continue
            finally:
                decoded += stream.frames
            warnings = stream.warnings()
            if end_ns is None:
                return DecodeEnd(track.facts.duration_ns, decoded, tuple(warnings))
            end_ns = _finish(assembly, plan, track, end_ns, warnings)
            return DecodeEnd(end_ns, decoded, tuple(warnings))
    raise AssertionError("the last walk takes frames in whatever order they come")


def _walks(track: Track, plan: Plan) -> Iterator[_Walk]:
    """The ways to find the frames, the cheapest first; all but the last raise Disorder where they cannot."""
    if track.keys is not None:
        yield partial(_walk_selected, track, track.keys, plan)
    if track.timeline.timed:
        yield partial(_walk_from_seek, track)
    yield partial(_walk_all, track)


def _walk_selected(track: Track, keys: Keys, plan: Plan, stream: Stream, assembly: Assembly) -> int | None:
    """Decode what the wanted times need; what comes out must be what the packets promised."""
    wanted = wanted_frames(lambda: plan)
    ticks = WantedTimes(track.timeline.to_ticks(each.time_ns) for each in wanted)
    selection = Selection(stream, track.timeline, keys, ticks)

    def check(pts: int | None) -> None:
        if selection.promised() != pts:
            raise Disorder("another frame comes than the packets promised")

    end_ns = _serve(selection.frames(), assembly, check)
    if ticks.next is not None or assembly.held is None:
        return end_ns
    while assembly.wanted is not None:
        if assembly.wanted.time_ns >= track.facts.duration_ns:
            return end_ns
        check(assembly.held.pts)
        assembly.fill()
    return None


def _walk_from_seek(track: Track, stream: Stream, assembly: Assembly) -> int | None:
    """All frames from the first wanted time on, where the container's index leads there."""
    assert assembly.wanted is not None
    start_ns = assembly.wanted.time_ns
    if start_ns <= 0 or not stream.seek(track.timeline.to_ticks(start_ns)):
        raise Disorder("nothing to seek")
    frames = all_frames(stream, track.timeline)
    first = next(frames, None)
    if first is None or first.start_ns > start_ns:
        raise Disorder("the index is wrong, or there is no key frame before")
    return _serve(chain((first,), frames), assembly, _trust)


def _walk_all(track: Track, stream: Stream, assembly: Assembly) -> int | None:
    return _serve(all_frames(stream, track.timeline), assembly, _trust)


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


def _finish(assembly: Assembly, plan: Plan, track: Track, end_ns: int, warnings: list[str]) -> int:
    """Serve what is wanted still by the last frame, in a plan cut to where the frames end: there."""
    if assembly.held is None:
        raise Refusal("CORRUPT_VIDEO", "not one frame of the range asked for can be decoded")
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
    return end_ns
