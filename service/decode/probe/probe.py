"""What must be known of a video before it is decoded, from as few of its bytes as tell it for sure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial

from tubelet.service.decode.demux.byte_source import Source
from tubelet.service.decode.demux.container import candidates, open_container, plays_from_front
from tubelet.service.decode.demux.container_crop import Cropping
from tubelet.service.decode.demux.encryption import encrypted, stated_scheme
from tubelet.service.decode.demux.hwaccel import accelerator
from tubelet.service.decode.demux.matroska_clusters import Clusters
from tubelet.service.decode.demux.packet_stats import KeyFrames, Tally
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.demux.timestamps import Timeline
from tubelet.service.decode.limits import Limits, check_streams
from tubelet.service.decode.probe.container_index import is_indexed_to_the_end, tally_of_ends, tally_of_index
from tubelet.service.decode.probe.metadata import header_metadata, metadata_of
from tubelet.service.decode.probe.seek_index import find_clusters, tally_by_seeking
from tubelet.service.decode.probe.stream_head import Handover, Head, Opening, read_head, stated_rate
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.types.video import VideoMetadata

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
    "theora",
}
_CLEAN_KEYS |= {"wmv1", "wmv2", "wmv3", "vc1", "msmpeg4v2", "msmpeg4v3"}
# They have no other ones.
_CLEAN_KEYS |= {"mjpeg", "prores", "dnxhd", "dvvideo", "ffv1", "huffyuv", "ffvhuff", "utvideo"}
_CLEAN_KEYS |= {"jpeg2000", "png"}

_TRIED = 3  # streams, of a file in which nothing decodes: each costs a reading of all of it
_MAY_BE_ENCRYPTED = ("NOT_A_VIDEO", "UNSUPPORTED_VIDEO", "NO_VIDEO_STREAM", "CORRUPT_VIDEO")
_WORTH_IT = 500  # packets; fewer are read in the time that it takes to ask an index


@dataclass(frozen=True, slots=True)
class Track:
    """The stream that is decoded, how its ticks become time, and where decoding can begin.

    If ``is_front``, only the front of the file is known: ``metadata`` is what its header says, and no key
    frame is known yet. Whoever decodes first can go on behind the head, where there is an opening.
    """

    metadata: VideoMetadata
    stream_index: int
    timeline: Timeline
    aspect: Fraction | None  # of a pixel
    cropping: Cropping  # of the stored picture, before anything else
    keys: KeyFrames | None  # None: stamps do not tell which frame is shown when, or key frames are not clean
    has_clean_keys: bool  # what is decoded from a key frame on is the same as if all before were decoded
    is_front: bool = False
    clusters: Clusters | None = None  # by which the key frames are found that the container cannot find
    handover: Handover = field(default_factory=Handover)

    def close(self) -> None:
        """Nobody will decode it any more."""
        self.handover.close()
        if self.keys is not None:
            self.keys.close()


def probe_front(source: Source, limits: Limits, pulse: Callable[[], None]) -> Track:
    """Decode the first frame, and leave the stream open to go on from there.

    A file that is on its way is waited for where it cannot be decoded from the front.

    Raises:
        VideoRejected: NOT_A_VIDEO, UNSUPPORTED_VIDEO, NO_VIDEO_STREAM, VIDEO_TOO_LARGE, CORRUPT_VIDEO.
    """
    if source.size_bytes is None and not plays_from_front(source):
        source.wait_for_size()
    try:
        stream = next(_streams(source, limits, pulse))
        with _open_on_success(stream):
            head = read_head(stream)
            metadata = header_metadata(stream, head, limits)
            track = _track(stream, head, metadata, Tally())
            return replace(track, is_front=True, handover=Handover(Opening(stream, head)))
    except VideoRejected:
        # What is missing may stand at the end, or another stream may have frames.
        return probe(source, limits, pulse)


def probe(source: Source, limits: Limits, pulse: Callable[[], None]) -> Track:
    """Decode the first frame and learn of every packet.

    Where they would have to be asked for, of no more than tell when the video ends and where its key frames
    are, if the file's index does.

    Raises:
        VideoRejected: NOT_A_VIDEO, UNSUPPORTED_VIDEO, NO_VIDEO_STREAM, VIDEO_TOO_LARGE, CORRUPT_VIDEO.
    """
    source.wait_for_size()
    try:
        return _probe(source, limits, pulse)
    except VideoRejected as refusal:
        scheme = stated_scheme(source) if refusal.reason in _MAY_BE_ENCRYPTED else None
        if scheme is None:
            raise
        raise encrypted(scheme) from refusal


def _probe(source: Source, limits: Limits, pulse: Callable[[], None]) -> Track:
    size_bytes = source.wait_for_size()
    refusals = []
    for stream in _streams(source, limits, pulse):
        try:
            with _open_on_success(stream):
                head = read_head(stream)
                tally, clusters = _tally(source, stream, head, limits, pulse)
            reader = stream
            if tally is None and stream.has_moved:  # a file that is damaged may have no way back to its front
                index = stream.stream.index
                stream.close()
                reader = Stream(open_container(source), index, limits, pulse)
            with _open_on_success(reader):
                is_held = tally is None and reader.read_through()
                metadata = metadata_of(reader, head, tally or reader.tally, size_bytes, limits)
                track = _track(
                    reader, head, metadata, tally or reader.tally, None if tally is None else clusters
                )
            # Who opens the file anew may jump over a damaged beginning; this decoder has met it.
            if is_held and track.keys is not None and reader is stream and not stream.is_damaged:
                return replace(track, handover=Handover(Opening(stream, head)))
            reader.close()
            return track
        except VideoRejected as refusal:
            if refusal.reason != "CORRUPT_VIDEO":
                raise
            refusals.append(refusal)
    raise refusals[0]


def _track(
    stream: Stream, head: Head, metadata: VideoMetadata, tally: Tally, clusters: Clusters | None = None
) -> Track:
    # Some writers know only when a packet is decoded, and say that it is shown then.
    tells_order = tally.reorders or stream.tally.reorders or not stream.reorders
    may_jump = head.timeline.timed and tells_order and not stream.joins and not stream.has_changed
    is_clean = may_jump and metadata.codec in _CLEAN_KEYS
    return Track(
        metadata=metadata,
        stream_index=stream.stream.index,
        timeline=head.timeline,
        aspect=stream.aspect,
        cropping=stream.cropping,
        keys=tally.keys if is_clean and tally.is_sound else None,
        has_clean_keys=is_clean,
        clusters=clusters,
    )


@contextmanager
def _open_on_success(stream: Stream) -> Iterator[None]:
    try:
        yield
    except BaseException:
        stream.close()
        raise


def _streams(source: Source, limits: Limits, pulse: Callable[[], None]) -> Iterator[Stream]:
    """Those that may be the video, the likeliest first."""
    container = open_container(source, accelerator(limits.hardware))
    check_streams(len(container.streams), limits)
    first, *others = candidates(container)[:_TRIED]
    yield Stream(container, first, limits, pulse)
    for stream_index in others:
        yield Stream(open_container(source, accelerator(limits.hardware)), stream_index, limits, pulse)


def _tally(
    source: Source, stream: Stream, head: Head, limits: Limits, pulse: Callable[[], None]
) -> tuple[Tally | None, Clusters | None]:
    """What an index, or seeking, tells of the packets of a stream whose head has been read, if that pays.

    And the clusters by which it did, without which nobody finds those key frames.
    """
    if source.is_whole:
        return tally_of_index(stream, head.packets, _WORTH_IT, may_guess=False), None
    index = stream.stream.index  # may be asked for when this stream is closed

    def reopen(clusters: Clusters | None = None) -> Stream:
        return Stream(open_container(source), index, limits, pulse, clusters=clusters)

    tally = None
    if is_indexed_to_the_end(stream):
        tally = tally_of_index(stream, head.packets, 1, may_guess=True)
    if tally is None:
        with reopen() as other:
            tally = tally_of_ends(other, stream.tally, stated_rate(stream), source.wait_for_size())
    if tally is not None:
        return tally, None
    clusters = find_clusters(source, stream)
    tally = tally_by_seeking(stream, partial(reopen, clusters), source.wait_for_size(), clusters)
    return tally, clusters
