"""A video's bytes where they lie in the message that brings them.

A message with one field is a tag, a length and that many bytes; protobuf's own parser copies them twice.
https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Callable
from typing import TypeVar

M = TypeVar("M")

_TAG = b"\x12"  # field 2, of bytes
_LENGTH_BYTES = 5  # at most: messages have less than 2 GiB


def chunk_or(parse: Callable[[bytes], M]) -> Callable[[bytes], M | memoryview]:
    """Read a message that holds a chunk and nothing else without a copy, and parse any other one."""

    def read(message: bytes) -> M | memoryview:
        chunk = chunk_of(message)
        return parse(message) if chunk is None else chunk

    return read


def chunk_of(message: bytes) -> memoryview | None:
    """What a message holds that is ``chunk`` alone; None for any other one."""
    if message[:1] != _TAG:
        return None
    size = 0
    for place, byte in enumerate(message[1 : 1 + _LENGTH_BYTES]):
        size |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            start = place + 2
            return memoryview(message)[start:] if len(message) == start + size else None
    return None
