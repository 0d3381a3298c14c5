"""The bytes of a file that have arrived, as sorted, disjoint ranges [start, end)."""

from bisect import bisect_left, bisect_right


class ByteRanges:
    """A set of byte ranges; ranges that touch are merged."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Add the range [start, end)."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def contiguous_end(self, offset: int) -> int:
        """Return the end of the range that contains ``offset``, or ``offset`` if none does."""
        found = bisect_right(self._starts, offset) - 1
        return max(offset, self._ends[found]) if found >= 0 else offset

    def next_start(self, offset: int) -> int | None:
        """Return the start of the first range after ``offset``, or None."""
        found = bisect_right(self._starts, offset)
        return self._starts[found] if found < len(self._starts) else None
