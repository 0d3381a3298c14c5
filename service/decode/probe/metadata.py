"""What is said of a video: by its packets, which tell what it spans, or by its header, which may lie."""

from tubelet.service.decode.demux.packet_stats import Tally
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.limits import Limits, check_duration
from tubelet.service.decode.pixels.rgb_converter import display_size
from tubelet.service.decode.probe.stream_head import Head, header_rate, stated_rate, stated_s
from tubelet.service.types.video import NS_PER_S, VideoMetadata

_HEADER_OFF_S = 1.0  # a header that is wrong by more than this, and by a tenth, is worth a warning


def metadata_of(stream: Stream, head: Head, tally: Tally, size_bytes: int, limits: Limits) -> VideoMetadata:
    """By a tally of all packets.

    Raises:
        VideoRejected: VIDEO_TOO_LARGE.
    """
    span = _span(tally, head)
    duration_ns = head.timeline.to_ns(head.timeline.origin + span)
    check_duration(duration_ns, limits)
    width, height = display_size(head.first, stream.aspect, stream.cropping)
    return VideoMetadata(
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


def header_metadata(stream: Stream, head: Head, limits: Limits) -> VideoMetadata:
    """By the header alone: zeros for what it does not say, or cannot mean."""
    duration_s = stated_s(stream) or 0.0
    width, height = display_size(head.first, stream.aspect, stream.cropping)
    return VideoMetadata(
        container=stream.container.format.name,
        codec=stream.stream.codec_context.codec.canonical_name,
        width=width,
        height=height,
        fps=float(stated_rate(stream)),
        frames=max(stream.stream.frames, 0),
        duration_ns=round(duration_s * NS_PER_S) if 0 < duration_s <= limits.max_duration_s else 0,
        size_bytes=0,
    )


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
    if stream.is_raw and header_rate(stream) is None:
        warnings.append(f"nothing states the frame rate: {stated_rate(stream)} frames a second are assumed")
    if not tally.is_counted:
        warnings.append("the number of frames is an estimate, by the frame rate: not all packets were read")
    if stream.broke_off:
        warnings.append("the file breaks off: what was read of it is taken as the whole")
    if stream.joins:
        warnings.append(f"the time stamps jump {stream.joins} times: the video goes on where they do")
    if tally.corrupt:
        warnings.append(f"{tally.corrupt} of {tally.packets} packets are marked as corrupt")
    if tally.is_encrypted:
        warnings.append("a part of the video is encrypted: its frames show noise")
    header_s = stated_s(stream)
    off_s = abs(header_s - duration_ns / NS_PER_S) if header_s is not None else 0.0
    if off_s > max(_HEADER_OFF_S, duration_ns / NS_PER_S / 10):
        warnings.append(
            f"the header says {header_s:.3f} s, but the frames span {duration_ns / NS_PER_S:.3f} s"
        )
    return warnings
