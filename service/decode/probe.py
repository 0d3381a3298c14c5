"""What must be known of a video before it is decoded, from as few of its bytes as tell it for sure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from service.decode.clock import Timeline
from service.decode.container import candidates, open_container
from service.decode.facts import facts_of, header_facts
from service.decode.front import plays_from_front
from service.decode.hardware import accelerator
from service.decode.index import tally_of_index
from service.decode.limits import Limits, check_streams
from service.decode.opening import Head, Opening, read_head
from service.decode.protocol import Refusal
from service.decode.source import Source
from service.decode.stream import Stream
from service.decode.tally import Keys, Tally
from service.values import VideoFacts

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


@dataclass(frozen=True, slots=True)
class Track:
    """The stream that is decoded, how its ticks become time, and where decoding can begin.

    With an ``opening``, only the front of the file is known: ``facts`` are its header's words, and no key
    frame is known yet.
    """

    facts: VideoFacts
    stream_index: int
    timeline: Timeline
    aspect: Fraction | None  # of a pixel
    keys: Keys | None  # None: its stamps do not tell which frame is shown when, or key frames are not clean
    has_clean_keys: bool  # what is decoded from a key frame on is the same as if all before were decoded
    opening: Opening | None = None


def probe_front(source: Source, limits: Limits, pulse: Callable[[], None]) -> Track:
    """Decode the first frame, and leave the stream open to go on from there.

    A file that is on its way is waited for where it cannot be decoded from the front.

    Raises:
        Refusal: NOT_A_VIDEO, UNSUPPORTED_VIDEO, NO_VIDEO_STREAM, VIDEO_TOO_LARGE, CORRUPT_VIDEO.
    """
    if not source.is_whole and not plays_from_front(source):
        source.wait_for_all()
    try:
        stream = next(_streams(source, limits, pulse))
        try:
            head = read_head(stream)
            return _track(stream, head, header_facts(stream, head, limits), Tally(), Opening(stream, head))
        except BaseException:
            stream.close()
            raise
    except Refusal:
        # What is missing may stand at the end, or another stream may have frames.
        return probe(source, limits, pulse)


def probe(source: Source, limits: Limits, pulse: Callable[[], None]) -> Track:
    """Decode the first frame and learn of every packet, once all of them are there.

    Raises:
        Refusal: NOT_A_VIDEO, UNSUPPORTED_VIDEO, NO_VIDEO_STREAM, VIDEO_TOO_LARGE, CORRUPT_VIDEO.
    """
    size_bytes = source.wait_for_all()
    refusals = []
    for stream in _streams(source, limits, pulse):
        with stream:
            try:
                head = read_head(stream)
                tally = tally_of_index(stream) or _tally_of_packets(stream)
                facts = facts_of(stream, head, tally, size_bytes, limits)
                return _track(stream, head, facts, tally)
            except Refusal as refusal:
                if refusal.reason != "CORRUPT_VIDEO":
                    raise
                refusals.append(refusal)
    raise refusals[0]


def _track(
    stream: Stream, head: Head, facts: VideoFacts, tally: Tally, opening: Opening | None = None
) -> Track:
    is_clean = head.timeline.timed and facts.codec in _CLEAN_KEYS
    return Track(
        facts=facts,
        stream_index=stream.stream.index,
        timeline=head.timeline,
        aspect=stream.stream.sample_aspect_ratio,
        keys=tally.keys if is_clean and tally.is_sound else None,
        has_clean_keys=is_clean,
        opening=opening,
    )


def _streams(source: Source, limits: Limits, pulse: Callable[[], None]) -> Iterator[Stream]:
    """Those that may be the video, the likeliest first."""
    container = open_container(source, accelerator(limits.hardware))
    check_streams(len(container.streams), limits)
    first, *others = candidates(container)
    yield Stream(container, first, limits, pulse)
    for stream_index in others:
        yield Stream(open_container(source, accelerator(limits.hardware)), stream_index, limits, pulse)


def _tally_of_packets(stream: Stream) -> Tally:
    while stream.read() is not None:
        pass
    return stream.tally
