"""The probe: finds the video stream of a file, its metadata, and where decoding can begin."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial

from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.container import candidate_streams, is_progressive, open_container
from tubelet.service.decode.demux.container_crop import Cropping
from tubelet.service.decode.demux.encryption import encrypted_video_error, find_encryption_scheme
from tubelet.service.decode.demux.hwaccel import accelerator
from tubelet.service.decode.demux.packet_stats import KeyFrameIndex, PacketCounter, PacketStats
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.demux.timestamps import Timeline
from tubelet.service.decode.limits import Limits, check_streams
from tubelet.service.decode.probe.container_index import (
    StatsUnavailable,
    is_index_complete,
    stats_from_endpoints,
    stats_from_index,
)
from tubelet.service.decode.probe.metadata import metadata_from_header, metadata_from_stats
from tubelet.service.decode.probe.seek_index import stats_by_seeking
from tubelet.service.decode.probe.stream_head import (
    OpenStream,
    StreamHandover,
    StreamHead,
    read_head,
)
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.types.video import VideoMetadata

# Codecs whose key frames refer to nothing before them; older codecs also mark others as key frames.
_INDEPENDENT_KEY_FRAME_CODECS = {
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
    "theora",
}
_INDEPENDENT_KEY_FRAME_CODECS |= {"wmv1", "wmv2", "wmv3", "vc1", "msmpeg4v2", "msmpeg4v3"}
# These codecs have nothing but key frames.
_INDEPENDENT_KEY_FRAME_CODECS |= {
    "mjpeg",
    "prores",
    "dnxhd",
    "dvvideo",
    "ffv1",
    "huffyuv",
    "ffvhuff",
    "utvideo",
}
_INDEPENDENT_KEY_FRAME_CODECS |= {"jpeg2000", "png"}

_MAX_STREAMS_TRIED = 3  # streams of a file in which nothing decodes: each costs a reading of the whole file
_MAYBE_ENCRYPTED_REASONS = ("NOT_A_VIDEO", "UNSUPPORTED_VIDEO", "NO_VIDEO_STREAM", "CORRUPT_VIDEO")
_MIN_PACKETS_FOR_INDEX = 500  # fewer packets are read as quickly as an index is used


@dataclass(frozen=True, slots=True)
class Track:
    """The stream that is decoded, its metadata, timeline and key frames.

    If ``is_header_only``, only the beginning of the file was read: ``metadata`` is what its header states,
    and key frames are unknown. The first decoding continues with the open stream in ``handover``, if there is
    one.
    """

    metadata: VideoMetadata
    stream_index: int
    timeline: Timeline
    aspect: Fraction | None  # the width of a pixel relative to its height
    cropping: Cropping  # of the stored picture, applied first
    # None if timestamps do not tell which frame is shown when, or if seeking is unreliable
    key_frames: KeyFrameIndex | None
    # decoding from a key frame gives the same frames as decoding from the start
    has_independent_key_frames: bool
    is_header_only: bool = False
    handover: StreamHandover = field(default_factory=StreamHandover)

    def close(self) -> None:
        """Close the open stream and the key frame index."""
        self.handover.close()
        if self.key_frames is not None:
            self.key_frames.close()


def probe_header(source: ByteSource, limits: Limits, heartbeat: Callable[[], None]) -> Track:
    """Decode the first frame, and leave the stream open to continue from there.

    If decoding cannot start at the front, wait for the rest of the file and probe all of it.

    Raises:
        VideoRejected: NOT_A_VIDEO, UNSUPPORTED_VIDEO, NO_VIDEO_STREAM, VIDEO_TOO_LARGE, CORRUPT_VIDEO.
    """
    if source.size_bytes is None and not is_progressive(source):
        source.wait_for_size()
    try:
        with ExitStack() as owned:
            stream = owned.enter_context(next(_candidate_streams(source, limits, heartbeat)))
            head = read_head(stream)
            track = _build_track(stream, head, metadata_from_header(stream, head), PacketCounter().stats())
            owned.pop_all()
            return replace(track, is_header_only=True, handover=StreamHandover(OpenStream(stream, head)))
    except VideoRejected:
        # The end of the file may have what is missing, or another stream may have frames.
        return probe(source, limits, heartbeat)


def probe(source: ByteSource, limits: Limits, heartbeat: Callable[[], None]) -> Track:
    """Decode the first frame and count every packet.

    If bytes must be fetched and the file's index allows it, only the packets are read that tell when the
    video ends and where its key frames are.

    Raises:
        VideoRejected: NOT_A_VIDEO, UNSUPPORTED_VIDEO, NO_VIDEO_STREAM, VIDEO_TOO_LARGE, CORRUPT_VIDEO.
    """
    source.wait_for_size()
    try:
        return _probe(source, limits, heartbeat)
    except VideoRejected as refusal:
        scheme = find_encryption_scheme(source) if refusal.reason in _MAYBE_ENCRYPTED_REASONS else None
        if scheme is None:
            raise
        raise encrypted_video_error(scheme) from refusal


def _probe(source: ByteSource, limits: Limits, heartbeat: Callable[[], None]) -> Track:
    """Probe the candidate streams in turn, until one has a frame."""
    refusals = []
    for stream in _candidate_streams(source, limits, heartbeat):
        try:
            return _probe_stream(stream)
        except VideoRejected as refusal:
            if refusal.reason != "CORRUPT_VIDEO":
                raise
            refusals.append(refusal)
    raise refusals[0]


def _probe_stream(stream: Stream) -> Track:
    """Probe ``stream``; close it, unless decoding can continue with it."""
    with ExitStack() as owned:
        owned.enter_context(stream)
        head = read_head(stream)
        stats = _stats_without_scan(stream, head)
        if stats is not None:
            return _track_from_stats(stream, head, stats)
        if stream.has_seeked:  # a damaged file may have no way back to its beginning
            reopened = owned.enter_context(stream.reopen())
            reopened.recount_without(head.leading_packets, ())
            reopened.scan()
            return _track_from_stats(reopened, head, reopened.stats)
        is_held = stream.scan()
        track = _track_from_stats(stream, head, stream.stats)
        # A stream that is opened again can skip the damaged beginning; this decoder has met it.
        if not is_held or track.key_frames is None or stream.decoder.has_errors:
            return track
        owned.pop_all()
        return replace(track, handover=StreamHandover(OpenStream(stream, head)))


def _track_from_stats(stream: Stream, head: StreamHead, stats: PacketStats) -> Track:
    """Build a track whose metadata is known from the statistics of all packets."""
    return _build_track(stream, head, metadata_from_stats(stream, head, stats), stats)


def _build_track(stream: Stream, head: StreamHead, metadata: VideoMetadata, stats: PacketStats) -> Track:
    """Build a track, with key frames if ``stats`` and the codec show that seeking is reliable."""
    # Some writers know only the DTS and write it as the PTS too.
    tells_order = (
        stats.has_b_frame_delay or stream.counter.has_b_frame_delay or not stream.decoder.has_b_frames
    )
    # FFmpeg derives the timestamps of a raw stream from where it begins to read.
    has_own_times = head.timeline.timed and not stream.is_raw
    may_jump = has_own_times and tells_order and not stream.discontinuities and not stream.headers_changed
    is_clean = may_jump and metadata.codec in _INDEPENDENT_KEY_FRAME_CODECS
    return Track(
        metadata=metadata,
        stream_index=stream.av_stream.index,
        timeline=head.timeline,
        aspect=stream.aspect,
        cropping=stream.cropping,
        key_frames=stats.key_frames if is_clean and stats.has_reliable_timestamps else None,
        has_independent_key_frames=is_clean,
    )


def _candidate_streams(source: ByteSource, limits: Limits, heartbeat: Callable[[], None]) -> Iterator[Stream]:
    """Open the streams that may be the video in turn, the likeliest first."""
    container = open_container(source, accelerator(limits.hardware))
    check_streams(len(container.streams), limits)
    first, *others = candidate_streams(container)[:_MAX_STREAMS_TRIED]
    yield Stream(container, first, limits, heartbeat)
    for stream_index in others:
        yield Stream(open_container(source, accelerator(limits.hardware)), stream_index, limits, heartbeat)


def _stats_without_scan(stream: Stream, head: StreamHead) -> PacketStats | None:
    """Return statistics from the index or by seeking, if that is faster than reading every packet.

    ``head`` has been read from ``stream``.
    """
    size_bytes = stream.source.wait_for_size()
    strategies: list[Callable[[], PacketStats]] = [
        partial(stats_from_endpoints, stream, size_bytes),
        partial(stats_by_seeking, stream, size_bytes),
    ]
    if stream.source.is_complete:
        strategies = [
            partial(stats_from_index, stream, head.packets, _MIN_PACKETS_FOR_INDEX, may_guess=False)
        ]
    elif is_index_complete(stream):
        strategies.insert(0, partial(stats_from_index, stream, head.packets, 1, may_guess=True))
    for strategy in strategies:
        with suppress(StatsUnavailable):
            return strategy()
    return None
