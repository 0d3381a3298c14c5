"""What the index of a file says of its packets need not be read from them."""

from collections.abc import Sequence
from fractions import Fraction

from av.packet import Packet

from tubelet.service.decode.demux.container import BUFFER_BYTES
from tubelet.service.decode.demux.packet_stats import Key, Keys, Tally
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.probe.stream_head import stated_s

# Formats whose demuxers know key frames that they have not come to.
_WITH_KEYS = ("matroska,webm", "avi")
_ENTRIES_A_PULSE = 10_000
_MISSING_S, _MISSING = 10, 0.1  # of the end, in an index that will be whole when that is read
_MISSING_BYTES = 32 * BUFFER_BYTES  # and a part of the file that is soon read


def is_indexed_to_the_end(stream: Stream) -> bool:
    """Does what is known of the index reach to about where the header says that the stream ends?"""
    index, seconds = stream.stream.index_entries, stated_s(stream)
    if not len(index) or stream.time_base is None or seconds is None:
        return len(index) > 0
    missing_s = seconds - float((index[-1].timestamp - index[0].timestamp) * stream.time_base)
    return missing_s <= max(_MISSING_S, seconds * _MISSING)


def tally_of_index(stream: Stream, head: Sequence[Packet], at_least: int, *, may_guess: bool) -> Tally | None:
    """The tally of a stream of mp4 or mov whose first packets have been read, by an index of every packet.

    None where packets have to be read for it, or where there are fewer than ``at_least``. The index tells
    when packets are decoded; how much later they are shown may differ from one to the next, where the frame
    rate does or groups are open. Then that is the longest that was seen, if it ``may_guess``.

    The packets after the last key frame are read all the same: only they say when the video ends, and whether
    the file has all that its index promises. A fragmented file states no number of packets, or the first
    fragment's; its index is gathered from its fragments as it is opened, but for the last one, perhaps, or
    from none of them where a list of them comes first (``sidx``).

    Raises:
        VideoRejected: VIDEO_TOO_LARGE.
    """
    count, stated = len(stream.stream.index_entries), stream.stream.frames
    front = stream.tally
    if "mov" not in stream.container.format.name or count < max(at_least, stated):
        return None
    first = stream.stream.index_entries[0]
    if front.earliest is None or not head or head[0].pts is None or head[0].dts != first.timestamp:
        return None
    delay = head[0].pts - first.timestamp  # what the index has are decoding stamps
    keys = _keys_by_index(stream, delay)
    if keys is None or keys[-1].number < front.read:
        return None
    while front.may_lead and stream.read() is not None:
        pass
    if not stream.seek_key(keys[-1]):
        return None
    while stream.read() is not None:
        pass
    tail, begun = stream.tally, stream.tally.first_key
    if begun is None or not tail.is_sound:
        return None
    delays = delay, begun.pts - begun.dts
    if delays[0] != delays[1] and not may_guess:
        return None
    keys, count = _keys_by_index(stream, max(delays)), len(stream.stream.index_entries)
    if keys is None:
        return None
    # Some edit lists have a seek come out at the key frame before.
    place = next((key.number for key in reversed(keys) if key.dts == begun.dts), None)
    if place is None or tail.packets != count - place:
        return None
    packets = sum(not entry.is_discard for entry in stream.stream.index_entries) - front.leading
    return Tally.of_ends(front, tail, Keys(keys), packets)


def _keys_by_index(stream: Stream, delay: int) -> list[Key] | None:
    """Shown so long after they are decoded. None where the first packet is none, or stamps do not rise."""
    index = stream.stream.index_entries
    stream.check_frames(len(index))
    keys: list[Key] = []
    last: int | None = None
    for number, entry in enumerate(index):
        if number % _ENTRIES_A_PULSE == 0:
            stream.pulse()
        if last is not None and entry.timestamp <= last:
            return None
        last = entry.timestamp
        if entry.is_keyframe:
            keys.append(Key(last + delay, last, number))
    return keys if keys and keys[0].number == 0 else None


def tally_of_ends(stream: Stream, head: Tally, rate: Fraction, size_bytes: int) -> Tally | None:
    """A tally by the first packets, of which ``head`` is, and those after the last key frame in the index.

    Where the index has key frames alone, the others are counted by the frame rate, in frames a second. None
    where it says nothing of most of the file: without one, FFmpeg lists the key frames that it has read.
    """
    earliest, latest = head.earliest, head.latest
    time_base = stream.time_base
    if stream.container.format.name not in _WITH_KEYS or time_base is None:
        return None
    if earliest is None or latest is None or not stream.seek(earliest):  # Matroska reads its index to seek
        return None
    index = stream.stream.index_entries
    if not len(index) or size_bytes - index[-1].pos > max(_MISSING_BYTES, size_bytes * _MISSING):
        return None
    keys = [(entry.timestamp, number) for number, entry in enumerate(index) if entry.is_keyframe]
    times = [time for time, _ in keys]
    if not keys or times != sorted(set(times)) or times[-1] <= latest or not _read_from(stream, times[-1]):
        return None
    tail = stream.tally
    assert tail.latest is not None  # that of the key frame, at least
    is_counted = len(keys) < len(index) == keys[-1][1] + tail.packets
    if not is_counted:
        keys = [(time, round((time - earliest) * time_base * rate)) for time in times]
    packets = (
        len(index) - head.leading if is_counted else round((tail.latest - earliest) * time_base * rate) + 1
    )
    tally = Tally.of_ends(head, tail, Keys(Key(time, time, number) for time, number in keys), packets)
    tally.is_counted = is_counted
    return tally


def _read_from(stream: Stream, key: int) -> bool:
    """Read from a key frame to the end: is it there, and is the end where the file's is?"""
    if not stream.seek(key):
        return False
    first = stream.read()
    if first is None or not first.is_keyframe or key not in (first.pts, first.dts):
        return False
    while stream.read() is not None:
        pass
    return not stream.broke_off
