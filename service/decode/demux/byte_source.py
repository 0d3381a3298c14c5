"""A video file of which some bytes may still be on their way."""

import os
from collections.abc import Callable

from tubelet.service.types.byte_ranges import ByteRanges


class ByteSource:
    """Random access to a video file whose bytes may arrive while it is read.

    The object owns the descriptor ``fd`` and closes it. Without ``request``, the whole file is there. With
    it, a read of missing bytes calls ``request(start, end)``, which must return only after ``add_available``
    has been called for some of them.
    """

    def __init__(
        self, fd: int, request: Callable[[int, int], None] | None = None, size_bytes: int | None = None
    ) -> None:
        self._fd = fd
        self._request = request
        self._available = ByteRanges()
        self.size_bytes = size_bytes  # None until the size is known
        if request is None:
            self.size_bytes = os.fstat(fd).st_size
            self._available.add(0, self.size_bytes)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    @property
    def is_complete(self) -> bool:
        """Whether every byte of the file has arrived."""
        return self.size_bytes is not None and self._available.contiguous_end(0) == self.size_bytes

    def add_available(self, start: int, end: int, size_bytes: int | None) -> None:
        """Record that the bytes [start, end) have arrived, and the file's size if it is known by now."""
        self._available.add(start, end)
        self.size_bytes = size_bytes

    def mark_end(self) -> None:
        """End the file after the bytes that have arrived without a gap; no more will come."""
        self.size_bytes = self._available.contiguous_end(0)

    def read(self, offset: int, count: int) -> bytes:
        """Read 1 to ``count`` bytes at ``offset``, waiting for them; return none at the end of the file."""
        while (end := self._available.contiguous_end(offset)) == offset:
            if self.size_bytes is not None and offset >= self.size_bytes:
                return b""
            assert self._request is not None
            self._request(offset, offset + count)
        return os.pread(self._fd, min(count, end - offset), offset)

    def read_all(self, offset: int, count: int) -> bytes:
        """Read ``count`` bytes at ``offset``, waiting for them; return fewer only at the end of the file."""
        data = b""
        while len(data) < count and (more := self.read(offset + len(data), count - len(data))):
            data += more
        return data

    def wait_for_size(self) -> int:
        """Return the size of the file; while it is unknown, wait until every byte has arrived."""
        while self.size_bytes is None:
            assert self._request is not None
            available_end = self._available.contiguous_end(0)
            self._request(available_end, available_end + 1)
        return self.size_bytes
