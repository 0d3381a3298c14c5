"""Packet statistics from the container's index, without reading every packet."""

from collections.abc import Sequence
from fractions import Fraction

from av.packet import Packet

from tubelet.service.decode.demux.container import BUFFER_BYTES
from tubelet.service.decode.demux.packet_stats import KeyFrame, KnownKeyFrames, PacketStats
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.limits import check_frames
from tubelet.service.decode.probe.stream_head import header_duration_s

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


def stats_from_index(
    stream: Stream, head: Sequence[Packet], at_least: int, *, may_guess: bool
) -> PacketStats | None:
    """Return the statistics of an mp4 or mov stream from its index, which lists every packet.

    ``head`` are the first packets, which have been read. None if packets must be read after all, or if there
    are fewer than ``at_least``. The index states when packets are decoded. The delay until they are shown may
    vary, with the frame rate or with open GOPs. Then ``may_guess`` allows to take the longest delay seen;
    without it, the answer is None.

    The packets after the last key frame are always read: only they tell when the video ends, and whether the
    file is as long as its index says. A fragmented file states no number of packets, or that of its first
    fragment. FFmpeg collects its index from the fragments while opening the file, perhaps without the last
    fragment, or without any of them if a list of fragments comes first (``sidx``).

    Raises:
        VideoRejected: VIDEO_TOO_LARGE.
    """
    count, stated = len(stream.av_stream.index_entries), stream.av_stream.frames
    front = stream.stats
    if "mov" not in stream.container.format.name or count < max(at_least, stated):
        return None
    first = stream.av_stream.index_entries[0]
    if front.earliest is None or not head or head[0].pts is None or head[0].dts != first.timestamp:
        return None
    delay = head[0].pts - first.timestamp  # the index contains DTS
    keys = _keys_by_index(stream, delay)
    if keys is None or keys[-1].packet_index < front.packets_read:
        return None
    while stream.counter.may_have_more_leading and stream.read() is not None:
        pass
    front = stream.stats
    if not stream.seek_to_key_frame(keys[-1]):
        return None
    while stream.read() is not None:
        pass
    tail, begun = stream.stats, stream.counter.key_frames.first
    if begun is None or not tail.has_reliable_timestamps:
        return None
    delays = delay, begun.pts - begun.dts
    if delays[0] != delays[1] and not may_guess:
        return None
    keys, count = _keys_by_index(stream, max(delays)), len(stream.av_stream.index_entries)
    if keys is None:
        return None
    # With some edit lists, a seek leads to the key frame before.
    place = next((key.packet_index for key in reversed(keys) if key.dts == begun.dts), None)
    if place is None or tail.packets != count - place:
        return None
    packets = sum(not entry.is_discard for entry in stream.av_stream.index_entries) - front.leading_count
    return front.joined_with(tail, KnownKeyFrames(keys), packets, is_exact=True)


def _keys_by_index(stream: Stream, delay: int) -> list[KeyFrame] | None:
    """Return the index's key frames, shown ``delay`` ticks after their DTS; None if the index is unusable."""
    index = stream.av_stream.index_entries
    check_frames(len(index), stream.limits)
    keys: list[KeyFrame] = []
    last: int | None = None
    for number, entry in enumerate(index):
        if number % _ENTRIES_PER_HEARTBEAT == 0:
            stream.heartbeat()
        if last is not None and entry.timestamp <= last:
            return None
        last = entry.timestamp
        if entry.is_keyframe:
            keys.append(KeyFrame(last + delay, last, number))
    return keys if keys and keys[0].packet_index == 0 else None


def stats_from_endpoints(
    stream: Stream, head: PacketStats, rate: Fraction, size_bytes: int
) -> PacketStats | None:
    """Return the statistics from the first packets, counted in ``head``, and those after the last key frame.

    If the index lists key frames only, ``rate`` in frames a second gives the number of the others. None if
    the index covers only part of the file: without an index, FFmpeg lists the key frames that it has read.
    """
    earliest, latest = head.earliest, head.latest
    time_base = stream.time_base
    if stream.container.format.name not in _WITH_KEYS or time_base is None:
        return None
    # seeking makes the Matroska demuxer read its index
    if earliest is None or latest is None or not stream.seek(earliest):
        return None
    index = stream.av_stream.index_entries
    if not len(index) or size_bytes - index[-1].pos > max(_MISSING_BYTES, size_bytes * _MISSING):
        return None
    keys = [(entry.timestamp, number) for number, entry in enumerate(index) if entry.is_keyframe]
    times = [time for time, _ in keys]
    if not keys or times != sorted(set(times)) or times[-1] <= latest or not _read_from(stream, times[-1]):
        return None
    tail = stream.stats
    assert tail.latest is not None  # the key frame has a timestamp
    is_frame_count_exact = len(keys) < len(index) == keys[-1][1] + tail.packets
    if not is_frame_count_exact:
        keys = [(time, round((time - earliest) * time_base * rate)) for time in times]
    packets = (
        len(index) - head.leading_count
        if is_frame_count_exact
        else round((tail.latest - earliest) * time_base * rate) + 1
    )
    key_frames = KnownKeyFrames(KeyFrame(time, time, number) for time, number in keys)
    return head.joined_with(tail, key_frames, packets, is_exact=is_frame_count_exact)


def _read_from(stream: Stream, key: int) -> bool:
    """Read from the key frame at ``key`` to the end; False if it is missing or the file is truncated."""
    if not stream.seek(key):
        return False
    first = stream.read()
    if first is None or not first.is_keyframe or key not in (first.pts, first.dts):
        return False
    while stream.read() is not None:
        pass
    return not stream.is_truncated
