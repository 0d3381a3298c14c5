"""A stream that has just been opened: its first frames, and the clock that they start."""

from dataclasses import dataclass
from fractions import Fraction

from av.packet import Packet
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.encryption import check_encryption
from tubelet.service.decode.demux.leading_packets import Lead
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.demux.timestamps import Timeline, exact
from tubelet.service.decode.protocol import VideoRejected

_USUAL_RATE = Fraction(25)  # frames a second when neither stamps nor header tell, as in FFmpeg's raw demuxers
_RATES = (Fraction(1, 3600), Fraction(1000))  # a header's rate outside of these is no rate
_SLACK_S = Fraction(1, 1000)  # less than any frame lasts
# A codec that states a faster one gives that of a clock, of which each frame lasts any number of ticks.
_FASTEST = Fraction(300)


@dataclass(frozen=True, slots=True)
class Head:
    """The first frames that came out of a stream, and all packets that were read for them."""

    frames: list[VideoFrame]
    packets: list[Packet]
    timeline: Timeline
    lead: Lead

    @property
    def first(self) -> VideoFrame:
        return self.frames[0]


def read_head(stream: Stream) -> Head:
    """
    Raises:
        VideoRejected: CORRUPT_VIDEO, UNSUPPORTED_VIDEO, VIDEO_TOO_LARGE.
    """
    read: list[Packet] = []
    frames: list[VideoFrame] = []
    while not frames:
        packet = stream.read()
        if packet is None:
            frames = stream.drain()
            break
        if not read:
            check_encryption(stream.stream, packet)
        read.append(packet)
        frames = stream.decode(packet)
    if not frames:
        raise VideoRejected(
            "CORRUPT_VIDEO", f"not one frame of the video's {len(read)} packets can be decoded"
        )
    timeline = _timeline(stream, frames[0])
    slack = max(1, int(_SLACK_S / timeline.time_base)) if stream.may_reorder else 0
    lead = Lead(frames[0], read, slack, early_lack_stamps=stream.early_lack_stamps)
    stream.leave_out(lead, read)
    return Head(frames, read, timeline, lead)


@dataclass(frozen=True, slots=True)
class Opening:
    """A stream, and its head if that has been read already: then it goes on behind it."""

    stream: Stream
    head: Head | None = None


class Handover:
    """An opening for whoever takes it first; nobody else keeps it, with its decoder and its frames."""

    def __init__(self, opening: Opening | None = None) -> None:
        self._opening = opening

    def take(self) -> Opening | None:
        opening, self._opening = self._opening, None
        return opening

    def close(self) -> None:
        """Nobody will take it any more."""
        if (opening := self.take()) is not None:
            opening.stream.close()


def _timeline(stream: Stream, first: VideoFrame) -> Timeline:
    rate = stated_rate(stream)
    time_base = stream.time_base or 1 / rate
    if time_base <= 0:
        raise VideoRejected("CORRUPT_VIDEO", "the video's stream has no clock")
    stamps = (first.pts, first.dts, stream.tally.earliest)
    return Timeline(
        time_base=time_base,
        origin=next((ticks for ticks in stamps if ticks is not None), 0),
        frame_ticks=max(1, round(1 / (rate * time_base))),
        timed=stream.tally.is_timed,
    )


def stated_rate(stream: Stream) -> Fraction:
    """The frame rate that the headers state, else the usual one, in frames a second."""
    return header_rate(stream) or _USUAL_RATE


def header_rate(stream: Stream) -> Fraction | None:
    """The frame rate that the headers state, in frames a second; None: they state none."""
    header, fastest = stream.stream, _RATES[1]
    rates = (header.average_rate, header.guessed_rate, header.base_rate)
    if stream.is_raw:
        # The average rate is a guess of the demuxer, and then so is the guessed rate if it is the same.
        guesses = (header.guessed_rate,) if header.guessed_rate != header.average_rate else ()
        rates, fastest = (header.codec_context.framerate, *guesses), _FASTEST
    known = (rate for rate in map(exact, rates) if rate is not None and _RATES[0] <= rate <= fastest)
    return next(known, None)


def stated_s(stream: Stream) -> float | None:
    """The duration that the header states for the stream, else for the file, in seconds."""
    if stream.is_raw:  # FFmpeg guesses it, by the bit rate
        return None
    header = stream.stream
    if header.duration is not None and stream.time_base is not None:
        return float(header.duration * stream.time_base) or None
    return stream.container.duration / 1e6 if stream.container.duration else None
