"""Where clusters begin in a Matroska file that does not list them: found by looking at places of the file.

What a browser records has no index, nor what broke off. Elements are those of RFC 9559, coded as RFC 8794 has
it.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import count, pairwise
from typing import NamedTuple

from tubelet.service.decode.demux.byte_source import Source
from tubelet.service.decode.demux.container import BUFFER_BYTES

# How one begins: its size, which says by its first bits how many bytes it takes, perhaps a checksum, and then
# its time, of which FFmpeg knows those of 63 bits.
_CLUSTER = re.compile(
    rb"\x1f\x43\xb6\x75"
    rb"(?:[\x80-\xff]|[\x40-\x7f].|[\x20-\x3f].{2}|[\x10-\x1f].{3}"
    rb"|[\x08-\x0f].{4}|[\x04-\x07].{5}|[\x02\x03].{6}|\x01.{7})"
    rb"(?:\xbf\x84.{4})?"
    rb"\xe7([\x80-\x87]|\x88(?=[\x00-\x7f]))",
    re.DOTALL,
)
_HEAD = 32  # bytes, more than that takes
_VOID = b"\xec"
_VOID_HEAD = 9  # bytes
_PLACES = 8  # at which the clock is read
_EVEN_LOOKS = 4  # by an even clock, before the middle is taken
_NEAR = 8 * BUFFER_BYTES  # bytes that are read in the time that one more look takes
_WORTH_IT = _PLACES * _NEAR  # bytes; a smaller file is soon read as a whole


class Cluster(NamedTuple):
    """A part of the file that can be read without those before."""

    place: int
    ticks: int  # from which its blocks count theirs


class Clusters:
    """Those of a source whose size is known, from the place of the first one on.

    ``pulse`` is called for each piece that is looked through.

    Raises:
        ValueError: it has too few, or times do not rise with places.
    """

    def __init__(self, source: Source, first: int, pulse: Callable[[], None]) -> None:
        self._source = source
        self._pulse = pulse
        self._end = source.wait_for_size()
        size_bytes = self._end - first
        if size_bytes < _WORTH_IT:
            raise ValueError(f"{size_bytes} bytes are soon read")
        marks = [first + size_bytes * number // _PLACES for number in range(_PLACES)]
        found = [self._next(place, end) for place, end in pairwise([*marks, self._end])]
        known = [cluster for cluster in (*found, self._find_last()) if cluster is not None]
        self._known = sorted(set(known))
        if len(self._known) < 2 or not _rises(self._known):
            raise ValueError("the clock does not rise")

    @property
    def last(self) -> Cluster:
        return self._known[-1]

    def before(self, ticks: int) -> Cluster:
        """One that begins at that time or earlier, the last one or little before it; else the first one."""
        number = bisect_right(self._known, ticks, key=_ticks)
        if number in (0, len(self._known)):
            return self._known[max(0, number - 1)]
        sooner, later = self._known[number - 1 : number + 1]
        end = later.place
        for look in count():
            if end - sooner.place <= _NEAR:
                break
            even = (ticks - sooner.ticks) / (later.ticks - sooner.ticks)
            part = even if look < _EVEN_LOOKS else 0.5
            guess = sooner.place + max(1, int((end - sooner.place) * part))
            found = self._next(guess, end)
            if found is None:
                end = guess
            elif not sooner.ticks < found.ticks < later.ticks:
                break  # the clock does not rise here: what comes is read
            else:
                self._known.insert(bisect_right(self._known, found), found)
                if found.ticks <= ticks:
                    sooner = found
                else:
                    later, end = found, found.place
        return sooner

    def _find_last(self) -> Cluster | None:
        """Reads no more than twice what comes from there on."""
        found, end, back = None, self._end, _NEAR
        while found is None and end > 0:
            start = max(0, self._end - back)
            found, end, back = self._next(start, end), start, 2 * back
        end = self._end
        while found is not None and found.place + 1 < end:
            middle = (found.place + 1 + end) // 2
            later = self._next(middle, end)
            found, end = (found, middle) if later is None else (later, end)
        return found

    def _next(self, start: int, end: int) -> Cluster | None:
        """The first that begins at ``start`` or behind it, before ``end``."""
        place, data = start, b""  # what was read from there on, and may hold the beginning of one
        while place < end:
            self._pulse()
            more = self._source.read(place + len(data), BUFFER_BYTES)
            data += more
            if (head := _CLUSTER.search(data)) is not None:
                if place + head.start() >= end:
                    return None
                size_bytes = head[1][0] & 0x7F
                ticks = self._source.read_all(place + head.end(), size_bytes)
                is_whole = len(ticks) == size_bytes
                return Cluster(place + head.start(), int.from_bytes(ticks)) if is_whole else None
            if not more:
                return None
            place, data = place + max(0, len(data) - _HEAD), data[-_HEAD:]
        return None


def void(size_bytes: int) -> bytes:
    """How an element begins that says nothing in so many bytes."""
    return _VOID + b"\x01" + (size_bytes - _VOID_HEAD).to_bytes(7)


def _ticks(cluster: Cluster) -> int:
    return cluster.ticks


def _rises(clusters: list[Cluster]) -> bool:
    return all(sooner.ticks < later.ticks for sooner, later in pairwise(clusters))
