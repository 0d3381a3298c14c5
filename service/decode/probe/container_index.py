"""Packet statistics from the container's index, without reading every packet."""

from collections.abc import Sequence

from av.packet import Packet

from tubelet.service.decode.demux.container import BUFFER_BYTES
from tubelet.service.decode.demux.packet_stats import KeyFrame, KnownKeyFrames, PacketStats
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.limits import check_frames
from tubelet.service.decode.probe.stream_head import frame_rate_or_default, header_duration_s

# Formats whose demuxers list key frames that have not been read yet.
_WITH_KEYS = ("matroska,webm", "avi")
_ENTRIES_PER_HEARTBEAT = 10_000
# seconds, and share of the duration, that an unfinished index may lack at the end
_MISSING_S, _MISSING = 10, 0.1
_MISSING_BYTES = 32 * BUFFER_BYTES  # bytes that an index may lack: they are read quickly


def is_index_complete(stream: Stream) -> bool:
    """Whether the part of the index read so far reaches about the end that the header states."""
    index, seconds = stream.av_stream.index_entries, header_duration_s(stream)
    if not len(index) or stream.time_base is None or seconds is None:
        return len(index) > 0
    missing_s = seconds - float((index[-1].timestamp - index[0].timestamp) * stream.time_base)
    return missing_s <= max(_MISSING_S, seconds * _MISSING)


class StatsUnavailable(Exception):
    """The statistics of a stream are unknown until every packet is read; the message says why."""


def stats_from_index(
    stream: Stream, head: Sequence[Packet], at_least: int, *, may_guess: bool
) -> PacketStats:
    """Return the statistics of an mp4 or mov stream from its index, which lists every packet.

    ``head`` are the first packets, which have been read. The index must list ``at_least`` packets. It states
    when packets are decoded. The delay until they are shown may vary, with the frame rate or with open GOPs.
    Then ``may_guess`` allows to take the longest delay seen.

    The packets after the last key frame are always read: only they tell when the video ends, and whether the
    file is as long as its index says. A fragmented file states no number of packets, or that of its first
    fragment. FFmpeg collects its index from the fragments while opening the file, perhaps without the last
    fragment, or without any of them if a list of fragments comes first (``sidx``).

    Raises:
        StatsUnavailable: the index is missing or does not match the packets.
        VideoRejected: VIDEO_TOO_LARGE.
    """
    delay = _delay_of_first_packet(stream, head, at_least)
    keys = _keys_by_index(stream, delay)
    if keys[-1].packet_index < stream.counter.packets_read:
        raise StatsUnavailable("the packets after the last key frame have been read in part")
    while stream.counter.may_have_more_leading and stream.read() is not None:
        pass
    front = stream.stats
    tail, begun = _read_from_key_frame(stream, keys[-1])
    delays = {delay, begun.pts - begun.dts}
    if len(delays) > 1 and not may_guess:
        raise StatsUnavailable("the delay from DTS to PTS varies")
    keys, index = _keys_by_index(stream, max(delays)), stream.av_stream.index_entries
    # With some edit lists, a seek leads to the key frame before.
    place = next((key.packet_index for key in reversed(keys) if key.dts == begun.dts), None)
    if place is None or tail.packets != len(index) - place:
        raise StatsUnavailable("the index lists other packets after the last key frame than there are")
    packets = sum(not entry.is_discard for entry in index) - front.leading_count
    return front.joined_with(tail, KnownKeyFrames(keys), packets, is_exact=True)


def _delay_of_first_packet(stream: Stream, head: Sequence[Packet], at_least: int) -> int:
    """Return the ticks from the DTS of the first packet, which the index contains, to its PTS."""
    index = stream.av_stream.index_entries
    if "mov" not in stream.container.format.name or len(index) < max(at_least, stream.av_stream.frames):
        raise StatsUnavailable("no index, or one of too few packets")
    if not head or head[0].pts is None or head[0].dts != index[0].timestamp:
        raise StatsUnavailable("the index does not begin with the first packet")
    if stream.counter.earliest is None:
        raise StatsUnavailable("no packet that counts has been read")
    return head[0].pts - index[0].timestamp


def _read_from_key_frame(stream: Stream, key: KeyFrame) -> tuple[PacketStats, KeyFrame]:
    """Read from ``key`` to the end; return the statistics, and the key frame that the seek led to."""
    if not stream.seek_to_key_frame(key):
        raise StatsUnavailable("the container cannot seek")
    stream.read_to_end()
    begun = stream.counter.key_frames.first
    if begun is None or not stream.counter.has_reliable_timestamps:
        raise StatsUnavailable("timestamps after the last key frame are unreliable")
    return stream.stats, begun


def _keys_by_index(stream: Stream, delay: int) -> list[KeyFrame]:
    """Return the key frames that the index lists, each shown ``delay`` ticks after its DTS."""
    index = stream.av_stream.index_entries
    check_frames(len(index), stream.limits)
    keys: list[KeyFrame] = []
    last: int | None = None
    for number, entry in enumerate(index):
        if number % _ENTRIES_PER_HEARTBEAT == 0:
            stream.heartbeat()
        if last is not None and entry.timestamp <= last:
            raise StatsUnavailable("the timestamps of the index do not rise")
        last = entry.timestamp
        if entry.is_keyframe:
            keys.append(KeyFrame(last + delay, last, number))
    if not keys or keys[0].packet_index > 0:
        raise StatsUnavailable("the index does not begin with a key frame")
    return keys


def stats_from_endpoints(front: Stream, size_bytes: int) -> PacketStats:
    """Return the statistics from the first packets, read from ``front``, and those after the last key frame.

    If the index lists key frames only, the frame rate gives the number of the others.

    Raises:
        StatsUnavailable: the index is missing, or covers only part of the file.
    """
    head, time_base = front.stats, front.time_base
    if front.container.format.name not in _WITH_KEYS or time_base is None or head.earliest is None:
        raise StatsUnavailable("a format without a list of key frames, or a stream without timestamps")
    frames_per_tick = time_base * frame_rate_or_default(front)
    with front.reopen() as stream:
        keys = _listed_key_frames(stream, head, size_bytes)
        tail = _read_from_time(stream, keys[-1].pts)
        listed = len(stream.av_stream.index_entries)
    assert tail.latest is not None  # the key frame has a timestamp
    is_exact = len(keys) < listed == keys[-1].packet_index + tail.packets
    packets = listed - head.leading_count
    if not is_exact:
        keys = [key._replace(packet_index=round((key.pts - head.earliest) * frames_per_tick)) for key in keys]
        packets = round((tail.latest - head.earliest) * frames_per_tick) + 1
    return head.joined_with(tail, KnownKeyFrames(keys), packets, is_exact=is_exact)


def _listed_key_frames(stream: Stream, head: PacketStats, size_bytes: int) -> list[KeyFrame]:
    """Return the key frames that the index lists, which must reach about the end of the file.

    Without an index, FFmpeg lists the key frames that it has read.
    """
    # Seeking makes the Matroska demuxer read its index.
    if head.earliest is None or head.latest is None or not stream.seek(head.earliest):
        raise StatsUnavailable("the container cannot seek")
    index = stream.av_stream.index_entries
    if not len(index) or size_bytes - index[-1].pos > max(_MISSING_BYTES, size_bytes * _MISSING):
        raise StatsUnavailable("the index is missing, or covers only part of the file")
    listed = enumerate(index)
    keys = [KeyFrame(each.timestamp, each.timestamp, number) for number, each in listed if each.is_keyframe]
    times = [key.pts for key in keys]
    if times != sorted(set(times)) or not times or times[-1] <= head.latest:
        raise StatsUnavailable("the times of key frames do not rise, or the last one has been read")
    return keys


def _read_from_time(stream: Stream, ticks: int) -> PacketStats:
    """Read from the key frame at ``ticks`` to the end, and return the statistics."""
    first = stream.read() if stream.seek(ticks) else None
    if first is None or not first.is_keyframe or ticks not in (first.pts, first.dts):
        raise StatsUnavailable("the index leads to another packet than the last key frame")
    stream.read_to_end()
    if stream.is_truncated:
        raise StatsUnavailable("the file is truncated")
    return stream.stats
