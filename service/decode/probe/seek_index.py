"""Search for key frames that no index lists, for files whose bytes are fetched on demand.

FFmpeg seeks in a fragmented mp4 by its list of fragments (``sidx``), and in MPEG-TS, which has no index, by
trying offsets.
"""

import statistics
from bisect import bisect_right, insort
from collections.abc import Callable
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import pairwise

from tubelet.service.decode.demux.container import BUFFER_BYTES
from tubelet.service.decode.demux.packet_stats import KeyFrame, PacketStats
from tubelet.service.decode.demux.stream import Stream
from tubelet.service.decode.demux.timestamps import DISCONTINUITY_S, allows_discontinuities
from tubelet.service.decode.probe.container_index import StatsUnavailable
from tubelet.service.decode.probe.stream_head import frame_rate_or_default, header_duration_s

_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "mpegts", "ogg", "asf")
_STEP_BACK_S = 0.5  # first step back from a time, in search of a key frame
_STEP_GROWTH = 1.5  # each further step back is longer by this factor
_NEAR_S = 1  # reading this much takes as long as a seek
_SAMPLES = 16  # offsets at which timestamps are sampled
_MAX_STEP_RATIO = 8  # allowed ratio of a step between samples to the median step
_MIN_BYTES = 4 * _SAMPLES * BUFFER_BYTES  # a smaller file is read whole quickly


class SeekedKeyFrames:
    """A ``KeyFrameIndex`` that remembers what a search has found.

    Two callers ask for the same times, one later than the other. Each step back would open the file again.
    """

    def __init__(self, search: "KeyFrameSearch") -> None:
        self._search = search
        self._pts: list[int] = []  # of all key frames that were found, sorted
        # By PTS: a key frame, and the last time for which it is known to be the answer.
        self._valid_until: dict[int, tuple[KeyFrame, int]] = {}
        self._none_until = search.earliest - 1  # there is no key frame up to here

    def close(self) -> None:
        """End the search."""
        self._search.close()

    def at_or_before(self, ticks: int) -> KeyFrame | None:
        """Return the last key frame at or before ``ticks``; None if only the first one may be."""
        if ticks <= self._none_until:
            return None
        place = bisect_right(self._pts, ticks) - 1
        if place >= 0:
            key, until = self._valid_until[self._pts[place]]
            if ticks <= until:
                return key
        found = self._search.at_or_before(ticks)
        if found is None:
            self._none_until = ticks
            return None
        if found.pts not in self._valid_until:
            insort(self._pts, found.pts)
        self._valid_until[found.pts] = found, ticks
        return found

    def after(self, ticks: int) -> KeyFrame | None:
        """Return None: the next key frame is unknown."""
        return None


class KeyFrameSearch:
    """A search for key frames that seeks and reads in the stream opened by ``reopen``.

    The video begins at ``earliest`` ticks. A frame lasts ``frame_ticks``, from which the number of packets
    before a key frame is estimated.
    """

    def __init__(self, reopen: Callable[[], Stream], earliest: int, frame_ticks: Fraction) -> None:
        self.earliest = earliest
        self._reopen = reopen
        self._stream = reopen()
        self._frame_ticks = frame_ticks
        self._ticks_per_s = 1 / (self._stream.time_base or Fraction(1))
        self._last_query = self._read_until_ticks = earliest
        self._found: list[KeyFrame] = []  # the last key frame before the last query, then those after it

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def at_or_before(self, ticks: int) -> KeyFrame | None:
        """Find the last key frame at or before ``ticks`` by reading on or by seeking."""
        if ticks < self._last_query:  # a demuxer that knows only parts of its list may not find the way back
            self.close()
            self._stream, self._read_until_ticks, self._found = self._reopen(), self.earliest, []
        self._last_query = ticks
        if ticks - self._read_until_ticks > _NEAR_S * self._ticks_per_s:
            self._seek(ticks)
        else:
            self._read_until(ticks)
        while len(self._found) > 1 and self._found[1].pts <= ticks:
            self._found.pop(0)
        return self._found[0] if self._is_found(ticks) else None

    def stats_to_end(self) -> PacketStats | None:
        """Read to the end; return the statistics since the last seek, or None if the file is truncated."""
        self._stream.read_to_end()
        return None if self._stream.is_truncated else self._stream.stats

    def has_even_timestamps(self, size_bytes: int) -> bool:
        """Whether timestamps sampled at equal distances in the file rise, without large jumps."""
        times = [self.earliest]
        for place in range(1, _SAMPLES):
            if not self._stream.seek_byte(size_bytes * place // _SAMPLES):
                return False
            packet = self._stream.read()
            while packet is not None and packet.dts is None:
                packet = self._stream.read()
            if packet is None or packet.dts is None:
                return False
            times.append(packet.dts)
        steps = [later - earlier for earlier, later in pairwise(times)]
        most = _MAX_STEP_RATIO * statistics.median(steps) + DISCONTINUITY_S * self._ticks_per_s
        return all(0 < step <= most for step in steps)

    def _seek(self, ticks: int) -> None:
        """Seek back from ``ticks``, farther each time, until a key frame lies between, and read up to it."""
        known, known_to = self._found, self._read_until_ticks
        least = int(_STEP_BACK_S * self._ticks_per_s)
        # Where there is no index, a seek leads to a packet that may not be a key frame.
        place, back = ticks, least if allows_discontinuities(self._stream.container.format) else 0
        self._found = []
        while not self._is_found(ticks) and place > known_to:
            place = max(ticks - back, known_to)
            if not self._stream.seek(place):
                break
            self._found, self._read_until_ticks = [], known_to
            self._read_until(ticks)
            back = max(least, int(_STEP_GROWTH * back))
        self._found = [*known, *self._found]

    def _is_found(self, ticks: int) -> bool:
        """Whether a key frame at or before ``ticks`` has been read."""
        return bool(self._found) and self._found[0].pts <= ticks

    def _read_until(self, ticks: int) -> None:
        """Read until all frames shown by ``ticks`` have been read, and collect key frames."""
        while self._read_until_ticks < ticks and (packet := self._stream.read()) is not None:
            if packet.dts is not None:
                self._read_until_ticks = packet.dts
            if packet.is_keyframe and packet.pts is not None:
                number = round((packet.pts - self.earliest) / self._frame_ticks)
                self._found.append(
                    KeyFrame(packet.pts, packet.pts if packet.dts is None else packet.dts, number)
                )


def stats_by_seeking(front: Stream, size_bytes: int) -> PacketStats:
    """Return statistics from the first packets, read from ``front``, and those after the last key frame.

    Raises:
        StatsUnavailable: seeking does not work, or cannot tell what lies between.
    """
    container, head, time_base = front.container.format, front.stats, front.time_base
    if container.name not in _FORMATS or size_bytes < _MIN_BYTES or not head.has_reliable_timestamps:
        raise StatsUnavailable("a format that cannot be searched, a small file, or unreliable timestamps")
    seconds = header_duration_s(front)
    if head.earliest is None or head.latest is None or time_base is None or seconds is None:
        raise StatsUnavailable("nothing tells about when the video ends")
    end = head.earliest + int(Fraction(seconds) / time_base)
    frame_ticks = 1 / (frame_rate_or_default(front) * time_base)
    with ExitStack() as owned:
        search = owned.enter_context(closing(KeyFrameSearch(front.reopen, head.earliest, frame_ticks)))
        if allows_discontinuities(container) and not search.has_even_timestamps(size_bytes):
            raise StatsUnavailable("timestamps do not rise evenly with the offset in the file")
        keys = SeekedKeyFrames(search)
        last = keys.at_or_before(end)
        if last is None or last.pts <= head.latest:
            raise StatsUnavailable("no key frame was found after the first packets")
        tail = search.stats_to_end()
        if tail is None or tail.latest is None or not tail.has_reliable_timestamps:
            raise StatsUnavailable("the end of the file is damaged")
        owned.pop_all()
    packets = round((tail.latest - head.earliest) / frame_ticks) + 1
    return head.joined_with(tail, keys, packets, is_exact=False)
