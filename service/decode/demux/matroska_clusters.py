"""Search for clusters in a Matroska file that has no index of them.

Recordings of browsers have no index, and truncated files have lost theirs. Elements are those of RFC 9559,
coded as in RFC 8794.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import count, pairwise
from typing import NamedTuple

from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.container import BUFFER_BYTES

# A cluster's header: its identifier, its size, whose first bits tell its length, perhaps a checksum, and then
# the cluster's time. FFmpeg accepts times of up to 63 bits.
_CLUSTER = re.compile(
    rb"\x1f\x43\xb6\x75"
    rb"(?:[\x80-\xff]|[\x40-\x7f].|[\x20-\x3f].{2}|[\x10-\x1f].{3}"
    rb"|[\x08-\x0f].{4}|[\x04-\x07].{5}|[\x02\x03].{6}|\x01.{7})"
    rb"(?:\xbf\x84.{4})?"
    rb"\xe7([\x80-\x87]|\x88(?=[\x00-\x7f]))",
    re.DOTALL,
)
_MAX_HEADER_BYTES = 32  # longer than any match of _CLUSTER
_VOID = b"\xec"
_VOID_HEADER_BYTES = 9  # bytes
_SAMPLES = 8  # offsets at which times are sampled
_INTERPOLATIONS = 4  # steps that assume evenly spread times, before bisection
_NEAR_BYTES = 8 * BUFFER_BYTES  # reading these takes as long as one more step
_MIN_BYTES = _SAMPLES * _NEAR_BYTES  # a smaller file is read whole quickly


class Cluster(NamedTuple):
    """A part of a Matroska file that can be read without the parts before it."""

    offset: int
    ticks: int  # the time that the times of its blocks are relative to


class ClusterIndex:
    """Clusters of a file, found on demand by reading at sampled offsets.

    ``source`` has a known size, and its first cluster begins at ``first``. ``heartbeat`` is called for each
    block that is searched.

    Raises:
        ValueError: the file is small, has too few clusters, or their times do not rise with their offsets.
    """

    def __init__(self, source: ByteSource, first: int, heartbeat: Callable[[], None]) -> None:
        self._source = source
        self._heartbeat = heartbeat
        self._end = source.wait_for_size()
        size_bytes = self._end - first
        if size_bytes < _MIN_BYTES:
            raise ValueError(f"{size_bytes} bytes are fewer than {_MIN_BYTES}: reading them all is quick")
        marks = [first + size_bytes * number // _SAMPLES for number in range(_SAMPLES)]
        found = [self._find_next(offset, end) for offset, end in pairwise([*marks, self._end])]
        known = [cluster for cluster in (*found, self._find_last()) if cluster is not None]
        self._known = sorted(set(known))
        if len(self._known) < 2 or not _rise(self._known):
            raise ValueError("fewer than two clusters, or their times do not rise")

    @property
    def last(self) -> Cluster:
        """The last cluster of the file."""
        return self._known[-1]

    def at_or_before(self, ticks: int) -> Cluster:
        """Return the last cluster at or before ``ticks``, or one a little before it; else the first one."""
        number = bisect_right(self._known, ticks, key=_ticks)
        if number in (0, len(self._known)):
            return self._known[max(0, number - 1)]
        earlier, later = self._known[number - 1 : number + 1]
        end = later.offset
        for step in count():
            if end - earlier.offset <= _NEAR_BYTES:
                break
            interpolated = (ticks - earlier.ticks) / (later.ticks - earlier.ticks)
            part = interpolated if step < _INTERPOLATIONS else 0.5
            guess = earlier.offset + max(1, int((end - earlier.offset) * part))
            found = self._find_next(guess, end)
            if found is None:
                end = guess
            elif not earlier.ticks < found.ticks < later.ticks:
                break  # times do not rise here: read on from the earlier cluster
            else:
                self._known.insert(bisect_right(self._known, found), found)
                if found.ticks <= ticks:
                    earlier = found
                else:
                    later, end = found, found.offset
        return earlier

    def _find_last(self) -> Cluster | None:
        """Find the last cluster; reads no more than twice the bytes from there to the end."""
        found, end, back = None, self._end, _NEAR_BYTES
        while found is None and end > 0:
            start = max(0, self._end - back)
            found, end, back = self._find_next(start, end), start, 2 * back
        end = self._end
        while found is not None and found.offset + 1 < end:
            middle = (found.offset + 1 + end) // 2
            later = self._find_next(middle, end)
            found, end = (found, middle) if later is None else (later, end)
        return found

    def _find_next(self, start: int, end: int) -> Cluster | None:
        """Return the first cluster that begins in [start, end)."""
        offset, data = start, b""  # bytes from ``offset`` on that may contain the start of a header
        while offset < end:
            self._heartbeat()
            more = self._source.read(offset + len(data), BUFFER_BYTES)
            data += more
            if (header := _CLUSTER.search(data)) is not None:
                if offset + header.start() >= end:
                    return None
                size_bytes = header[1][0] & 0x7F
                ticks = self._source.read_all(offset + header.end(), size_bytes)
                is_whole = len(ticks) == size_bytes
                return Cluster(offset + header.start(), int.from_bytes(ticks)) if is_whole else None
            if not more:
                return None
            offset, data = offset + max(0, len(data) - _MAX_HEADER_BYTES), data[-_MAX_HEADER_BYTES:]
        return None


def void_element(size_bytes: int) -> bytes:
    """Return the header of a Void element that takes ``size_bytes`` in all and that readers skip."""
    return _VOID + b"\x01" + (size_bytes - _VOID_HEADER_BYTES).to_bytes(7)


def _ticks(cluster: Cluster) -> int:
    """Return the time of ``cluster``, as a sort key."""
    return cluster.ticks


def _rise(clusters: list[Cluster]) -> bool:
    """Whether the times of ``clusters``, which are sorted by offset, rise strictly."""
    return all(earlier.ticks < later.ticks for earlier, later in pairwise(clusters))
