"""A video's bytes by their place in the file, of which some may be missing still."""

import os
from collections.abc import Callable

from tubelet.service.types.byte_ranges import ByteRanges


class Source:
    """``fd`` is this object's to close.

    ``ask`` is called for bytes that are not there, and returns when ``arrived`` has been told of some.
    Without it, all are there.
    """

    def __init__(
        self, fd: int, ask: Callable[[int, int], None] | None = None, size_bytes: int | None = None
    ) -> None:
        self._fd = fd
        self._ask = ask
        self._spans = ByteRanges()
        self.size_bytes = size_bytes  # None: not known yet
        if ask is None:
            self.size_bytes = os.fstat(fd).st_size
            self._spans.add(0, self.size_bytes)

    def close(self) -> None:
        os.close(self._fd)

    def move(self, fd: int) -> None:
        """The same bytes, and those that are still to come, lie in another file from now on."""
        os.close(self._fd)
        self._fd = fd

    @property
    def is_whole(self) -> bool:
        return self.size_bytes is not None and self._spans.contiguous_end(0) == self.size_bytes

    def arrived(self, start: int, end: int, size_bytes: int | None) -> None:
        """These bytes are there; the file's size may be known by now."""
        self._spans.add(start, end)
        self.size_bytes = size_bytes

    def end(self) -> None:
        """No more will come, whatever the file's size is."""
        self.size_bytes = self._spans.contiguous_end(0)

    def read(self, place: int, count: int) -> bytes:
        """At most ``count`` bytes, at least one unless the file ends there."""
        while (end := self._spans.contiguous_end(place)) == place:
            if self.size_bytes is not None and place >= self.size_bytes:
                return b""
            assert self._ask is not None
            self._ask(place, place + count)
        return os.pread(self._fd, min(count, end - place), place)

    def read_all(self, place: int, count: int) -> bytes:
        """So many bytes, fewer only where the file ends."""
        data = b""
        while len(data) < count and (more := self.read(place + len(data), count - len(data))):
            data += more
        return data

    def wait_for_size(self) -> int:
        """The size of the file; where it is not known yet, once every byte is there."""
        while self.size_bytes is None:
            assert self._ask is not None
            there = self._spans.contiguous_end(0)
            self._ask(there, there + 1)
        return self.size_bytes
