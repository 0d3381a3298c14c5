"""Editing the boxes of an mp4 or mov file (ISO 14496-12): a size, a name, then other boxes or bytes."""

import struct
from collections.abc import Callable, Iterator


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes that lie beside each other in ``data``: name, body. Only those of 32-bit sizes are known."""
    while data:
        size, name = struct.unpack_from(">I4s", data)
        assert size >= 8
        yield name, data[8:size]
        data = data[size:]


def edited(data: bytes, path: str, change: Callable[[bytes], bytes]) -> bytes:
    """Each box at ``path``, such as ``moov/trak``, replaced by what ``change`` makes of the whole of it.

    The boxes around it get their new sizes; nothing moves as long as they lie behind the media data.
    """
    name, _, rest = path.partition("/")
    return b"".join(
        box(found, body)
        if found != name.encode()
        else box(found, edited(body, rest, change))
        if rest
        else change(box(found, body))
        for found, body in boxes(data)
    )
