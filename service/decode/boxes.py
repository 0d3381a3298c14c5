"""The boxes of mp4 and mov files (ISO 14496-12)."""

import struct
from collections.abc import Iterator

_HEAD = struct.Struct(">I4s")  # size, name


def boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes that lie beside each other: name, body. None from the first one on whose size is wrong."""
    place = 0
    while place + _HEAD.size <= len(data):
        size, name = _HEAD.unpack_from(data, place)
        if size < _HEAD.size:
            return
        yield name, data[place + _HEAD.size : place + size]
        place += size
