"""What the index of a file says of its packets need not be read from them."""

from collections.abc import Sequence
from fractions import Fraction

from av.packet import Packet

from service.decode.stream import Stream
from service.decode.tally import Tally

# Formats whose demuxers know key frames that they have not come to.
_WITH_KEYS = ("matroska,webm", "avi")


def tally_of_index(stream: Stream, head: Sequence[Packet], at_least: int) -> Tally | None:
    """The tally of a stream of mp4 or mov whose first packets have been read, by an index of every packet.

    None where packets have to be read for it, or where there are fewer than ``at_least``.

    The packets after the last key frame are read all the same: only they say when the video ends, and whether
    the file has all that its index promises. A fragmented file states no number of packets; its index is
    gathered from its fragments as it is opened, but for the last one, perhaps.
    """
    index, stated = stream.stream.index_entries, stream.stream.frames
    if "mov" not in stream.container.format.name or len(index) < at_least or stated not in (0, len(index)):
        return None
    first = index[0]
    earliest = stream.tally.earliest
    if not first.is_keyframe or earliest is None or not head or head[0].pts is None:
        return None
    delay = head[0].pts - first.timestamp  # what the index has are decoding stamps
    last_key = max(number for number, entry in enumerate(index) if entry.is_keyframe)
    if last_key < stream.tally.packets or not stream.seek(index[last_key].timestamp + delay):
        return None
    while stream.read() is not None:
        pass
    tail = stream.tally
    index = stream.stream.index_entries
    if tail.packets != len(index) - last_key or not tail.is_sound:
        stream.seek(first.timestamp)
        return None
    tally = Tally()
    tally.is_timed = True
    for number, entry in enumerate(index):
        tally.packets += not entry.is_discard
        if entry.is_keyframe:
            tally.keys.add(entry.timestamp + delay, number)
    tally.earliest, tally.latest, tally.end = earliest, tail.latest, tail.end
    return tally


def tally_of_ends(stream: Stream, head: Tally, rate: Fraction) -> Tally | None:
    """A tally by the first packets, of which ``head`` is, and those after the last key frame in the index.

    Where the index has key frames alone, the others are counted by the frame rate, in frames a second. None
    where it says nothing of what comes after the first packets.
    """
    earliest, latest = head.earliest, head.latest
    time_base = stream.time_base
    if stream.container.format.name not in _WITH_KEYS or time_base is None:
        return None
    if earliest is None or latest is None or not stream.seek(earliest):  # Matroska reads its index to seek
        return None
    index = stream.stream.index_entries
    keys = [(entry.timestamp, number) for number, entry in enumerate(index) if entry.is_keyframe]
    times = [time for time, _ in keys]
    if not keys or times != sorted(set(times)) or times[-1] <= latest or not _read_from(stream, times[-1]):
        return None
    tail = stream.tally
    assert tail.latest is not None  # that of the key frame, at least
    tally = Tally()
    tally.is_timed = True
    tally.is_sound = head.is_sound and tail.is_sound
    tally.is_counted = len(keys) < len(index) == keys[-1][1] + tail.packets
    tally.packets = len(index) if tally.is_counted else round((tail.latest - earliest) * time_base * rate) + 1
    tally.corrupt = head.corrupt + tail.corrupt
    tally.earliest, tally.latest, tally.end = earliest, tail.latest, tail.end
    for time, number in keys:
        tally.keys.add(time, number if tally.is_counted else round((time - earliest) * time_base * rate))
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
