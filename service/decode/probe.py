"""Facts of a video from its packets: what they really span, for headers lie about durations and counts."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from service.decode.clock import Timeline
from service.decode.container import (
    MEDIA_ERRORS,
    Upload,
    is_end,
    likelihood,
    open_container,
    packets,
    video_streams,
)
from service.decode.pixels import display_size
from service.decode.protocol import Refusal
from service.values import NS_PER_S, VideoFacts

_USUAL_RATE = Fraction(25)  # frames a second when neither stamps nor header tell, as in FFmpeg's raw demuxers
_RATES = (Fraction(1, 3600), Fraction(1000))  # a header's rate outside of these is no rate
_HEADER_OFF_S = 1.0  # a header that is wrong by more than this, and by a tenth, is worth a warning


@dataclass(frozen=True, slots=True)
class Limits:
    """What one video may cost; see ``service.config.DecodeConfig``."""

    max_pixels: int
    max_frames: int
    max_streams: int
    max_duration_s: float
    max_cpu_s: float
    threads: int


@dataclass(frozen=True, slots=True)
class Track:
    """The stream that is decoded, and how its ticks become time."""

    facts: VideoFacts
    stream_index: int
    timeline: Timeline


def probe(upload: Upload, limits: Limits, pulse: Callable[[], None]) -> Track:
    """Read every packet and decode the first frame; ``pulse`` is called for each packet.

    Raises:
        Refusal: NOT_A_VIDEO, UNSUPPORTED_VIDEO, NO_VIDEO_STREAM, VIDEO_TOO_LARGE, CORRUPT_VIDEO.
    """
    with open_container(upload) as container:
        check_streams(len(container.streams), limits)
        scans = {stream.index: _Scan(stream) for stream in video_streams(container)}
        for scan in scans.values():
            check_pixels(scan.stream.codec_context.width, scan.stream.codec_context.height, limits)
            scan.stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
            scan.stream.codec_context.thread_count = 1
        damaged = _scan(container, scans, limits, pulse)
        best = max(scans.values(), key=lambda scan: (scan.packets > 0, likelihood(scan.stream)))
        return _track(container, best, upload.size_bytes, limits, damaged)


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raise ``Refusal`` VIDEO_TOO_LARGE when a frame is over the limit."""
    if width * height > limits.max_pixels:
        raise Refusal(
            "VIDEO_TOO_LARGE",
            f"frames of {width} x {height} pixels are more than {limits.max_pixels} pixels",
            limit=limits.max_pixels,
            value=width * height,
        )


def check_streams(streams: int, limits: Limits) -> None:
    """Raise ``Refusal`` VIDEO_TOO_LARGE when there are more than the limit."""
    if streams > limits.max_streams:
        raise Refusal(
            "VIDEO_TOO_LARGE",
            f"the file has {streams} streams, more than {limits.max_streams}",
            limit=limits.max_streams,
            value=streams,
        )


def check_frames(frames: int, limits: Limits) -> None:
    """Raise ``Refusal`` VIDEO_TOO_LARGE when there are more than the limit."""
    if frames > limits.max_frames:
        raise Refusal(
            "VIDEO_TOO_LARGE",
            f"the video has more than {limits.max_frames} frames",
            limit=limits.max_frames,
            value=frames,
        )


class _Scan:
    """What the packets of one stream say."""

    def __init__(self, stream: VideoStream) -> None:
        self.stream = stream
        self.packets = 0
        self.corrupt = 0
        self.timed = False
        self.earliest: int | None = None  # ticks
        self.latest: int | None = None
        self.end = 0  # ticks, the end of the latest packet
        self.first_frame: VideoFrame | None = None

    def add(self, packet: Packet) -> None:
        if packet.is_discard:  # an edit list has cut it away; it decodes, but is not shown
            self._decode(packet)
            return
        self.packets += 1
        self.corrupt += packet.is_corrupt
        ticks = packet.dts if packet.pts is None else packet.pts
        if ticks is not None:
            self.timed = True
            self.earliest = ticks if self.earliest is None else min(self.earliest, ticks)
            if self.latest is None or ticks >= self.latest:
                self.latest = ticks
                self.end = ticks + max(packet.duration or 0, 0)
        self._decode(packet)

    def flush(self) -> None:
        self._decode(None)

    def _decode(self, packet: Packet | None) -> None:
        if self.first_frame is not None or (packet is not None and packet.size == 0):
            return
        try:
            frames = self.stream.decode(packet)
        except MemoryError:
            raise
        except MEDIA_ERRORS:
            return
        self.first_frame = frames[0] if frames else None

    @property
    def rate(self) -> Fraction:
        for rate in (self.stream.average_rate, self.stream.guessed_rate, self.stream.base_rate):
            if rate is not None and _RATES[0] <= rate <= _RATES[1]:
                return rate
        return _USUAL_RATE


def _scan(
    container: InputContainer, scans: dict[int, _Scan], limits: Limits, pulse: Callable[[], None]
) -> bool:
    """Read all packets; True when the file breaks off in the middle."""
    for packet in packets(container, [scan.stream for scan in scans.values()]):
        pulse()
        if packet is None:
            for scan in scans.values():
                scan.flush()
            return True
        scan = scans[packet.stream.index]
        if is_end(packet):
            scan.flush()
        else:
            scan.add(packet)
            check_frames(scan.packets, limits)
    return False


def _track(container: InputContainer, scan: _Scan, size_bytes: int, limits: Limits, damaged: bool) -> Track:
    frame, stream = scan.first_frame, scan.stream
    if scan.packets == 0 or frame is None:
        raise Refusal("CORRUPT_VIDEO", f"not one frame of the video's {scan.packets} packets can be decoded")
    check_pixels(frame.width, frame.height, limits)
    time_base = stream.time_base or 1 / scan.rate
    if time_base <= 0:
        raise Refusal("CORRUPT_VIDEO", "the video's stream has no clock")
    timeline = Timeline(
        time_base=time_base,
        origin=_origin(scan, frame),
        frame_ticks=max(1, round(1 / (scan.rate * time_base))),
        timed=scan.timed,
    )
    span = _span(scan, frame, timeline)
    duration_ns = timeline.to_ns(timeline.origin + span)
    if duration_ns > limits.max_duration_s * NS_PER_S:
        raise Refusal(
            "VIDEO_TOO_LARGE",
            f"the video lasts {duration_ns / NS_PER_S:.0f} s, more than {limits.max_duration_s:g} s",
            limit=limits.max_duration_s,
            value=duration_ns / NS_PER_S,
        )
    width, height = display_size(frame, stream.sample_aspect_ratio)
    facts = VideoFacts(
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        width=width,
        height=height,
        fps=float(scan.packets / (span * time_base)),
        frames=scan.packets,
        duration_ns=duration_ns,
        size_bytes=size_bytes,
        warnings=tuple(_warnings(container, scan, duration_ns, damaged)),
    )
    return Track(facts, stream.index, timeline)


def _origin(scan: _Scan, frame: VideoFrame) -> int:
    stamps = (frame.pts, frame.dts, scan.earliest)
    return next((ticks for ticks in stamps if ticks is not None), 0)


def _span(scan: _Scan, frame: VideoFrame, timeline: Timeline) -> int:
    """How many ticks the video is shown, at least one frame."""
    if scan.latest is None or scan.earliest is None:
        return scan.packets * timeline.frame_ticks
    end = scan.end if scan.end > scan.latest else scan.latest + timeline.frame_ticks
    # Where only decoding stamps exist, the first frame comes out late by the decoder's delay, as all do.
    start = scan.earliest if frame.pts is None else timeline.origin
    return max(end - start, 1)


def _warnings(container: InputContainer, scan: _Scan, duration_ns: int, damaged: bool) -> list[str]:
    warnings = []
    if damaged:
        warnings.append("the file breaks off: what was read of it is taken as the whole")
    if scan.corrupt:
        warnings.append(f"{scan.corrupt} of {scan.packets} packets are marked as corrupt")
    header_s = _header_s(container, scan.stream)
    off_s = abs(header_s - duration_ns / NS_PER_S) if header_s is not None else 0.0
    if off_s > max(_HEADER_OFF_S, duration_ns / NS_PER_S / 10):
        warnings.append(
            f"the header says {header_s:.3f} s, but the frames span {duration_ns / NS_PER_S:.3f} s"
        )
    return warnings


def _header_s(container: InputContainer, stream: VideoStream) -> float | None:
    """The duration that the header states for the stream, else for the file, in seconds."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1e6
