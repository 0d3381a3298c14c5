"""The index of an mp4 or mov file lists every packet: what it says need not be read from the packets."""

from service.decode.stream import Stream
from service.decode.tally import Tally

_WORTH_IT = 500  # packets; fewer are read in the time that it takes to ask


def tally_of_index(stream: Stream) -> Tally | None:
    """The tally of a stream whose first packet has been read; None where packets have to be read for it.

    The packets after the last key frame are read all the same: only they say when the video ends, and whether
    the file has all that its index promises.
    """
    index = stream.stream.index_entries
    if "mov" not in stream.container.format.name or not _WORTH_IT <= len(index) == stream.stream.frames:
        return None
    first = index[0]
    pts = stream.tally.earliest
    if not first.is_keyframe or pts is None:
        return None
    tally = Tally()
    tally.is_timed = True
    delay = pts - first.timestamp  # what the index has are decoding stamps
    last_key = 0
    for number, entry in enumerate(index):
        tally.packets += not entry.is_discard
        if entry.is_keyframe:
            tally.keys.add(entry.timestamp + delay, number)
            last_key = number
    if last_key < stream.tally.packets or not stream.seek(index[last_key].timestamp):
        return None
    while stream.read() is not None:
        pass
    tail = stream.tally
    if tail.packets != len(index) - last_key or not tail.is_sound:
        stream.seek(first.timestamp)
        return None
    tally.earliest, tally.latest, tally.end = pts, tail.latest, tail.end
    return tally
