"""The beginning of a stream: its first frames, its timeline and its frame rate."""

from dataclasses import dataclass
from fractions import Fraction

from av.packet import Packet
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.encryption import check_encryption
from tubelet.service.decode.demux.leading_packets import (
    LeadingPackets,
    first_packets,
    packets_shown_before,
)
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.demux.timestamps import Timeline, to_fraction
from tubelet.service.decode.protocol import VideoRejected

_USUAL_RATE = Fraction(25)  # frames a second, assumed if nothing states the rate, as in FFmpeg's raw demuxers
_RATES = (Fraction(1, 3600), Fraction(1000))  # plausible frame rates
_SLACK_S = Fraction(1, 1000)  # shorter than any frame
# A codec that states a higher rate states its clock's, of which a frame lasts any number of ticks.
_FASTEST = Fraction(300)


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The first frames that came out of a stream, and all packets that were read until then."""

    frames: list[VideoFrame]
    packets: list[Packet]
    timeline: Timeline
    leading_packets: LeadingPackets

    @property
    def first(self) -> VideoFrame:
        """The first frame in display order."""
        return self.frames[0]


def read_head(stream: Stream) -> StreamHead:
    """Decode the first frames of ``stream``.

    Raises:
        VideoRejected: CORRUPT_VIDEO, UNSUPPORTED_VIDEO, VIDEO_TOO_LARGE.
    """
    read: list[Packet] = []
    frames: list[VideoFrame] = []
    while not frames:
        packet = stream.read()
        if packet is None:
            frames = stream.decoder.drain()
            break
        if not read:
            check_encryption(stream.av_stream, packet)
        read.append(packet)
        frames = stream.decoder.decode(packet)
    if not frames:
        raise VideoRejected("CORRUPT_VIDEO", f"none of the video's {len(read)} packets could be decoded")
    timeline = _timeline(stream, frames[0])
    leading_packets = _leading_packets(stream, frames, read, timeline)
    stream.recount_without(leading_packets, read)
    return StreamHead(frames, read, timeline, leading_packets)


def _leading_packets(
    stream: Stream, frames: list[VideoFrame], read: list[Packet], timeline: Timeline
) -> LeadingPackets:
    """Tell which packets yield no frame, after the packets ``read`` have yielded the first ``frames``.

    Without a PTS, nothing tells which packet a frame came from. A second decoder then counts the frames in
    the packets that were read.
    """
    if frames[0].pts is not None:
        slack = max(1, int(_SLACK_S / timeline.time_base)) if stream.decoder.may_have_b_frames else 0
        lacking = stream.early_packets_lack_timestamps
        return packets_shown_before(frames[0], read, slack, early_packets_lack_timestamps=lacking)
    with_frames = sum(packet.size > 0 for packet in read)
    if with_frames <= len(frames):
        return first_packets(0)
    with stream.reopen() as again:
        decoded = sum(len(again.decoder.decode(packet)) for packet in read) + len(again.decoder.drain())
    return first_packets(max(0, with_frames - decoded))


@dataclass(frozen=True, slots=True)
class OpenStream:
    """An open stream; with a head, it stands behind the packets of that head."""

    stream: Stream
    head: StreamHead | None = None


class StreamHandover:
    """An open stream that can be taken once, so that no one else keeps its decoder and frames alive."""

    def __init__(self, open_stream: OpenStream | None = None) -> None:
        self._open_stream = open_stream

    def take(self) -> OpenStream | None:
        """Return the open stream the first time, and None after that."""
        open_stream, self._open_stream = self._open_stream, None
        return open_stream

    def close(self) -> None:
        """Close the stream if it was not taken."""
        if (open_stream := self.take()) is not None:
            open_stream.stream.close()


def _timeline(stream: Stream, first: VideoFrame) -> Timeline:
    """Find the time base, the origin and the frame duration of ``stream``, whose first frame is ``first``."""
    rate = frame_rate_or_default(stream)
    time_base = stream.time_base or 1 / rate
    if time_base <= 0:
        raise VideoRejected("CORRUPT_VIDEO", "the video stream has an invalid time base")
    stamps = (first.pts, first.dts, stream.counter.earliest)
    return Timeline(
        time_base=time_base,
        origin=next((ticks for ticks in stamps if ticks is not None), 0),
        frame_ticks=max(1, round(1 / (rate * time_base))),
        timed=stream.counter.first is not None,
    )


def frame_rate_or_default(stream: Stream) -> Fraction:
    """Return the frame rate that the headers state, or else 25, in frames a second."""
    return header_frame_rate(stream) or _USUAL_RATE


def header_frame_rate(stream: Stream) -> Fraction | None:
    """Return the frame rate that the headers state, in frames a second; None if they state none."""
    header, fastest = stream.av_stream, _RATES[1]
    rates = (header.average_rate, header.guessed_rate, header.base_rate)
    if stream.is_raw:
        # The average rate is a guess of the demuxer, and so is the guessed rate if it is the same.
        guesses = (header.guessed_rate,) if header.guessed_rate != header.average_rate else ()
        rates, fastest = (header.codec_context.framerate, *guesses), _FASTEST
    known = (rate for rate in map(to_fraction, rates) if rate is not None and _RATES[0] <= rate <= fastest)
    return next(known, None)


def header_duration_s(stream: Stream) -> float | None:
    """Return the duration in seconds that the header states for the stream, or else for the file."""
    if stream.is_raw:  # FFmpeg only guesses it, from the bit rate
        return None
    header = stream.av_stream
    if header.duration is not None and stream.time_base is not None:
        return float(header.duration * stream.time_base) or None
    return stream.container.duration / 1e6 if stream.container.duration else None
