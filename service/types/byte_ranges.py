"""Which bytes of a file are there: disjoint ranges [start, end), sorted."""

from bisect import bisect_left, bisect_right


class ByteRanges:
    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """They are there from now on; ranges that touch become one."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def contiguous_end(self, offset: int) -> int:
        """Up to where all bytes from ``offset`` on are there; ``offset`` itself if that one is not."""
        found = bisect_right(self._starts, offset) - 1
        return max(offset, self._ends[found]) if found >= 0 else offset

    def next_start(self, offset: int) -> int | None:
        """Where the first range after this offset begins."""
        found = bisect_right(self._starts, offset)
        return self._starts[found] if found < len(self._starts) else None
