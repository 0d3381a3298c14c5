"""Key frames that no index lists, looked for where they are needed: in a file that is far away.

FFmpeg finds a time in a fragmented mp4 by its list of fragments (``sidx``), and in MPEG-TS, which has none of
anything, by trying places. In Matroska that lacks its list, ``Clusters`` do.
"""

import statistics
from bisect import bisect_right, insort
from collections.abc import Callable
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import pairwise

from tubelet.service.decode.demux.byte_source import Source
from tubelet.service.decode.demux.container import BUFFER_BYTES
from tubelet.service.decode.demux.matroska_clusters import Clusters
from tubelet.service.decode.demux.packet_stats import Key, Tally
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.demux.timestamps import JUMP_S, has_loose_clock
from tubelet.service.decode.probe.stream_head import stated_rate, stated_s

_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "mpegts", "ogg", "asf")
_BACK_S = 0.5  # from a time, to look for a key frame before it
_FARTHER = 1.5  # times as far back when there was none
_NEAR_S = 1  # what is read in the time that it takes to seek
_PLACES = 16  # at which a clock is read
_LONGEST = (1 << 15) - 1  # ticks after a cluster's time, at which a block of it is shown
_UNEVEN = 8  # times as much time between two of them as between most
_WORTH_IT = 4 * _PLACES * BUFFER_BYTES  # bytes; a smaller file is soon read as a whole


class SoughtKeys:
    """``KeyFrames`` of a stream that ``reopen`` opens, of which each call reads as much as it needs.

    ``earliest`` is when the video begins, in ticks, and ``frame_ticks`` how long a frame lasts, by which the
    packets before a key frame are counted.
    """

    def __init__(self, reopen: Callable[[], Stream], earliest: int, frame_ticks: Fraction) -> None:
        self._reopen = reopen
        self._stream = reopen()
        self._earliest = earliest
        self._frame_ticks = frame_ticks
        self._second = 1 / (self._stream.time_base or Fraction(1))  # ticks
        self._asked = self._read_to = earliest
        self._found: list[Key] = []  # the last one before what was asked for, and those read behind it
        self._starts: list[int] = []  # the stamps of all that were found, sorted
        # By its stamp, a key frame and until when it is the last.
        self._spans: dict[int, tuple[Key, int]] = {}
        self._none_to = earliest - 1  # up to here there is none

    def close(self) -> None:
        self._stream.close()

    def before(self, ticks: int) -> Key | None:
        """The last one that is shown at that time or earlier; None: there is none behind the first."""
        if ticks <= self._none_to:
            return None
        place = bisect_right(self._starts, ticks) - 1
        if place >= 0:
            key, until = self._spans[self._starts[place]]
            if ticks <= until:
                return key
        found = self._look_for(ticks)
        if found is None:
            self._none_to = ticks
        else:
            self._remember(found, ticks)
        return found

    def _look_for(self, ticks: int) -> Key | None:
        if ticks < self._asked:  # a demuxer that has met only parts of its list may not find back
            self.close()
            self._stream, self._read_to, self._found = self._reopen(), self._earliest, []
        self._asked = ticks
        if ticks - self._read_to > _NEAR_S * self._second:
            self._seek(ticks)
        else:
            self._read_on(ticks)
        while len(self._found) > 1 and self._found[1].pts <= ticks:
            self._found.pop(0)
        return self._found[0] if self._is_found(ticks) else None

    def _remember(self, key: Key, asked: int) -> None:
        """Two ask for the same times, one of them later: each step back would open the file anew."""
        if key.pts not in self._spans:
            insort(self._starts, key.pts)
        self._spans[key.pts] = key, asked

    def after(self, ticks: int) -> Key | None:
        """None: it would have to be looked for."""
        return None

    def tail(self) -> Tally | None:
        """Of the packets that ``before`` has read last and all that follow; None: the file breaks off."""
        while self._stream.read() is not None:
            pass
        return None if self._stream.broke_off else self._stream.tally

    def rises_evenly(self, size_bytes: int) -> bool:
        """Is nothing to be seen of parts whose clocks differ, at equal distances in the file?"""
        times = [self._earliest]
        for place in range(1, _PLACES):
            if not self._stream.seek_byte(size_bytes * place // _PLACES):
                return False
            packet = self._stream.read()
            while packet is not None and packet.dts is None:
                packet = self._stream.read()
            if packet is None or packet.dts is None:
                return False
            times.append(packet.dts)
        steps = [later - sooner for sooner, later in pairwise(times)]
        most = _UNEVEN * statistics.median(steps) + JUMP_S * self._second
        return all(0 < step <= most for step in steps)

    def _seek(self, ticks: int) -> None:
        """Read up to there from a place with a key frame in between, the nearer the better."""
        known, known_to = self._found, self._read_to
        least = int(_BACK_S * self._second)
        place, back = ticks, least if self._stream.finds_any_place else 0
        self._found = []
        while not self._is_found(ticks) and place > known_to:
            place = max(ticks - back, known_to)
            if not self._stream.seek(place):
                break
            self._found, self._read_to = [], known_to
            self._read_on(ticks)
            back = max(least, int(_FARTHER * back))
        self._found = [*known, *self._found]

    def _is_found(self, ticks: int) -> bool:
        return bool(self._found) and self._found[0].pts <= ticks

    def _read_on(self, ticks: int) -> None:
        """Until all frames shown by then have been read."""
        while self._read_to < ticks and (packet := self._stream.read()) is not None:
            if packet.dts is not None:
                self._read_to = packet.dts
            if packet.is_keyframe and packet.pts is not None:
                number = round((packet.pts - self._earliest) / self._frame_ticks)
                self._found.append(Key(packet.pts, packet.pts if packet.dts is None else packet.dts, number))


def find_clusters(source: Source, stream: Stream) -> Clusters | None:
    """Those of a Matroska stream whose first packets have been read, where looking for them pays."""
    index = stream.stream.index_entries
    if stream.container.format.name != "matroska,webm" or not len(index):
        return None
    try:
        return Clusters(source, index[0].pos, stream.pulse)
    except ValueError:
        return None


def tally_by_seeking(
    front: Stream, reopen: Callable[[], Stream], size_bytes: int, clusters: Clusters | None
) -> Tally | None:
    """A tally by the first packets, which have been read of ``front``, and those from the last key frame on.

    None where seeking leads nowhere, or cannot tell what lies between.
    """
    container, head = front.container.format, front.tally
    time_base, end = front.time_base, _end(front, clusters)
    if (container.name not in _FORMATS and clusters is None) or size_bytes < _WORTH_IT or not head.is_sound:
        return None
    if head.earliest is None or head.latest is None or time_base is None or end is None:
        return None
    frame_ticks = 1 / (stated_rate(front) * time_base)
    with ExitStack() as stack:
        keys = stack.enter_context(closing(SoughtKeys(reopen, head.earliest, frame_ticks)))
        if has_loose_clock(container) and not keys.rises_evenly(size_bytes):
            return None
        last = keys.before(end)
        tail = None if last is None or last.pts <= head.latest else keys.tail()
        if tail is None or tail.latest is None or not tail.is_sound:
            return None
        if clusters is not None and tail.latest - clusters.last.ticks > _LONGEST:
            return None  # the track has a time scale of its own: clusters that are found lie too far behind
        packets = round((tail.latest - head.earliest) / frame_ticks) + 1
        tally = Tally.of_ends(head, tail, keys, packets)
        tally.is_counted = False
        stack.pop_all()
        return tally


def _end(front: Stream, clusters: Clusters | None) -> int | None:
    """About when the last packets are shown, in ticks; None: nothing tells."""
    if clusters is not None:
        return clusters.last.ticks
    seconds, earliest = stated_s(front), front.tally.earliest
    if seconds is None or earliest is None or front.time_base is None:
        return None
    return earliest + int(Fraction(seconds) / front.time_base)
