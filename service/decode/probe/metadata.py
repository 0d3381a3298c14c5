"""A video's metadata and warnings, from its packets or, unverified, from its header."""

from tubelet.service.decode.demux.packet_stats import PacketStats
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.limits import check_duration
from tubelet.service.decode.pixels.rgb_converter import display_size, is_shown_as_stored
from tubelet.service.decode.probe.stream_head import (
    StreamHead,
    frame_rate_or_default,
    header_duration_s,
    header_frame_rate,
)
from tubelet.service.types.video import NS_PER_S, VideoMetadata

_HEADER_OFF_S = 1.0  # a difference of more than this, and of more than a tenth, causes a warning


def metadata_from_stats(stream: Stream, head: StreamHead, stats: PacketStats) -> VideoMetadata:
    """Return the video's metadata from the statistics of all its packets.

    Raises:
        VideoRejected: VIDEO_TOO_LARGE.
    """
    span = _span(stream, stats, head)
    duration_ns = head.timeline.to_ns(head.timeline.origin + span)
    check_duration(duration_ns, stream.limits)
    width, height = display_size(head.first, stream.aspect, stream.cropping)
    return VideoMetadata(
        container=stream.container.format.name,
        codec=stream.av_stream.codec_context.codec.canonical_name,
        width=width,
        height=height,
        fps=float(stats.packets / (span * head.timeline.time_base)),
        frames=stats.packets,
        duration_ns=duration_ns,
        size_bytes=stream.source.wait_for_size(),
        warnings=tuple(_warnings(stream, stats, duration_ns)),
        pixel_format=head.first.format.name,
        shown_as_stored=is_shown_as_stored(head.first, stream.aspect, stream.cropping),
    )


def metadata_from_header(stream: Stream, head: StreamHead) -> VideoMetadata:
    """Return the metadata that the header states, with zeros for what is missing or implausible."""
    duration_s = header_duration_s(stream) or 0.0
    width, height = display_size(head.first, stream.aspect, stream.cropping)
    return VideoMetadata(
        container=stream.container.format.name,
        codec=stream.av_stream.codec_context.codec.canonical_name,
        width=width,
        height=height,
        fps=float(frame_rate_or_default(stream)),
        frames=max(stream.av_stream.frames, 0),
        duration_ns=round(duration_s * NS_PER_S) if 0 < duration_s <= stream.limits.max_duration_s else 0,
        size_bytes=0,
        pixel_format=head.first.format.name,
        shown_as_stored=is_shown_as_stored(head.first, stream.aspect, stream.cropping),
    )


def _span(stream: Stream, stats: PacketStats, head: StreamHead) -> int:
    """Return the video's duration in ticks, at least one frame's."""
    timeline = head.timeline
    if stats.latest is None or stats.earliest is None:
        return stats.packets * timeline.frame_ticks
    end = stats.end if stats.end > stats.latest else stats.latest + timeline.frame_ticks
    # Without PTS, the decoder's delay shifts all frames alike, the first one included.
    is_shifted = head.first.pts is None and not stats.is_end_stated
    start = stats.earliest if is_shifted else timeline.origin
    span = max(end - start, 1)
    # Without a PTS, nothing tells how long after its packet the last frame is shown.
    at_constant_rate = round(stats.packets / (frame_rate_or_default(stream) * timeline.time_base))
    is_short = stats.lacks_pts and span < at_constant_rate <= span + timeline.frame_ticks
    return at_constant_rate if is_short else span


def _warnings(stream: Stream, stats: PacketStats, duration_ns: int) -> list[str]:
    """Describe what is unusual or wrong in the video, for the client."""
    warnings = []
    if stream.is_raw and header_frame_rate(stream) is None:
        warnings.append(
            f"the stream states no frame rate; {frame_rate_or_default(stream)} frames a second are assumed"
        )
    if not stats.is_frame_count_exact:
        warnings.append("the number of frames is estimated from the frame rate: not all packets were read")
    if stream.is_truncated:
        warnings.append("the file is truncated: only the part before that is used")
    if stream.discontinuities:
        warnings.append(
            f"the timestamps jump {stream.discontinuities} times; each part follows the one before"
        )
    if stats.corrupt_packets:
        warnings.append(f"{stats.corrupt_packets} of {stats.packets} packets are marked as corrupt")
    if stats.is_encrypted:
        warnings.append("part of the video is encrypted; its frames show noise")
    header_s = header_duration_s(stream)
    off_s = abs(header_s - duration_ns / NS_PER_S) if header_s is not None else 0.0
    if off_s > max(_HEADER_OFF_S, duration_ns / NS_PER_S / 10):
        warnings.append(
            f"the header says {header_s:.3f} s, but the frames span {duration_ns / NS_PER_S:.3f} s"
        )
    return warnings
