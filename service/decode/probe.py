"""Facts of a video from its packets: what they really span, for headers lie about durations and counts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from av.packet import Packet
from av.video.frame import VideoFrame

from service.decode.clock import Timeline
from service.decode.container import Upload, candidates, open_container
from service.decode.index import tally_of_index
from service.decode.limits import Limits
from service.decode.pixels import display_size
from service.decode.protocol import Refusal
from service.decode.stream import Stream
from service.decode.tally import Keys, Tally
from service.values import NS_PER_S, VideoFacts

_USUAL_RATE = Fraction(25)  # frames a second when neither stamps nor header tell, as in FFmpeg's raw demuxers
_RATES = (Fraction(1, 3600), Fraction(1000))  # a header's rate outside of these is no rate
# Codecs whose key frames need nothing that came before; older ones mark such that do.
_CLEAN_KEYS = {
    "h264",
    "hevc",
    "vvc",
    "av1",
    "vp8",
    "vp9",
    "mpeg1video",
    "mpeg2video",
    "mpeg4",
    "h263",
    "flv1",
}
_CLEAN_KEYS |= {"wmv3", "vc1", "mjpeg", "prores", "dnxhd", "ffv1", "png"}
_HEADER_OFF_S = 1.0  # a header that is wrong by more than this, and by a tenth, is worth a warning


@dataclass(frozen=True, slots=True)
class Track:
    """The stream that is decoded, how its ticks become time, and where decoding can begin."""

    facts: VideoFacts
    stream_index: int
    timeline: Timeline
    aspect: Fraction | None  # of a pixel
    keys: Keys | None  # None: its stamps do not tell which frame is shown when


@dataclass(frozen=True, slots=True)
class Head:
    """The first frames that came out of a stream, and all that was read until then."""

    frames: list[VideoFrame]
    packets: list[Packet]
    timeline: Timeline

    @property
    def first(self) -> VideoFrame:
        return self.frames[0]


def probe(upload: Upload, limits: Limits, pulse: Callable[[], None]) -> Track:
    """Decode the first frame and learn of every packet, from the container's index or by reading it.

    Raises:
        Refusal: NOT_A_VIDEO, UNSUPPORTED_VIDEO, NO_VIDEO_STREAM, VIDEO_TOO_LARGE, CORRUPT_VIDEO.
    """
    refusals = []
    for stream in _streams(upload, limits, pulse):
        with stream:
            try:
                head = read_head(stream)
                tally = tally_of_index(stream) or _tally_of_packets(stream)
                return describe(stream, tally, head, upload.size_bytes, limits)
            except Refusal as refusal:
                if refusal.reason != "CORRUPT_VIDEO":
                    raise
                refusals.append(refusal)
    raise refusals[0]


def read_head(stream: Stream) -> Head:
    """
    Raises:
        Refusal: CORRUPT_VIDEO, VIDEO_TOO_LARGE.
    """
    read: list[Packet] = []
    frames: list[VideoFrame] = []
    while not frames:
        packet = stream.read()
        if packet is None:
            frames = stream.drain()
            break
        read.append(packet)
        frames = stream.decode(packet)
    if not frames:
        raise Refusal("CORRUPT_VIDEO", f"not one frame of the video's {len(read)} packets can be decoded")
    return Head(frames, read, _timeline(stream, frames[0]))


def describe(stream: Stream, tally: Tally, head: Head, size_bytes: int, limits: Limits) -> Track:
    """What a tally of all packets tells of the video.

    Raises:
        Refusal: CORRUPT_VIDEO, VIDEO_TOO_LARGE.
    """
    span = _span(tally, head)
    duration_ns = head.timeline.to_ns(head.timeline.origin + span)
    if duration_ns > limits.max_duration_s * NS_PER_S:
        raise Refusal(
            "VIDEO_TOO_LARGE",
            f"the video lasts {duration_ns / NS_PER_S:.0f} s, more than {limits.max_duration_s:g} s",
            limit=limits.max_duration_s,
            value=duration_ns / NS_PER_S,
        )
    width, height = display_size(head.first, stream.stream.sample_aspect_ratio)
    facts = VideoFacts(
        container=stream.container.format.name,
        codec=stream.stream.codec_context.codec.canonical_name,
        width=width,
        height=height,
        fps=float(tally.packets / (span * head.timeline.time_base)),
        frames=tally.packets,
        duration_ns=duration_ns,
        size_bytes=size_bytes,
        warnings=tuple(_warnings(stream, tally, duration_ns)),
    )
    is_clean = tally.is_sound and head.timeline.timed and facts.codec in _CLEAN_KEYS
    keys = tally.keys if is_clean else None
    return Track(facts, stream.stream.index, head.timeline, stream.stream.sample_aspect_ratio, keys)


def _streams(upload: Upload, limits: Limits, pulse: Callable[[], None]) -> Iterator[Stream]:
    """Those that may be the video, the likeliest first."""
    container = open_container(upload)
    first, *others = candidates(container)
    yield Stream(container, first, limits, pulse)
    for stream_index in others:
        yield Stream(open_container(upload), stream_index, limits, pulse)


def _tally_of_packets(stream: Stream) -> Tally:
    while stream.read() is not None:
        pass
    return stream.tally


def _timeline(stream: Stream, first: VideoFrame) -> Timeline:
    rate = _rate(stream)
    time_base = stream.stream.time_base or 1 / rate
    if time_base <= 0:
        raise Refusal("CORRUPT_VIDEO", "the video's stream has no clock")
    stamps = (first.pts, first.dts, stream.tally.earliest)
    return Timeline(
        time_base=time_base,
        origin=next((ticks for ticks in stamps if ticks is not None), 0),
        frame_ticks=max(1, round(1 / (rate * time_base))),
        timed=stream.tally.is_timed,
    )


def _rate(stream: Stream) -> Fraction:
    header = stream.stream
    for rate in (header.average_rate, header.guessed_rate, header.base_rate):
        if rate is not None and _RATES[0] <= rate <= _RATES[1]:
            return rate
    return _USUAL_RATE


def _span(tally: Tally, head: Head) -> int:
    """How many ticks the video is shown, at least one frame."""
    timeline = head.timeline
    if tally.latest is None or tally.earliest is None:
        return tally.packets * timeline.frame_ticks
    end = tally.end if tally.end > tally.latest else tally.latest + timeline.frame_ticks
    # Where only decoding stamps exist, the first frame comes out late by the decoder's delay, as all do.
    start = tally.earliest if head.first.pts is None else timeline.origin
    return max(end - start, 1)


def _warnings(stream: Stream, tally: Tally, duration_ns: int) -> list[str]:
    warnings = []
    if stream.broke_off:
        warnings.append("the file breaks off: what was read of it is taken as the whole")
    if tally.corrupt:
        warnings.append(f"{tally.corrupt} of {tally.packets} packets are marked as corrupt")
    header_s = header_duration_s(stream)
    off_s = abs(header_s - duration_ns / NS_PER_S) if header_s is not None else 0.0
    if off_s > max(_HEADER_OFF_S, duration_ns / NS_PER_S / 10):
        warnings.append(
            f"the header says {header_s:.3f} s, but the frames span {duration_ns / NS_PER_S:.3f} s"
        )
    return warnings


def header_duration_s(stream: Stream) -> float | None:
    """The duration that the header states for the stream, else for the file, in seconds."""
    header = stream.stream
    if header.duration is not None and header.time_base is not None:
        return float(header.duration * header.time_base)
    return None if stream.container.duration is None else stream.container.duration / 1e6
