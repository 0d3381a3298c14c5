"""The boxes of mp4 and mov files (ISO 14496-12), read within fixed limits whatever the file contains."""

import struct
from collections.abc import Iterable, Iterator

from tubelet.service.decode.demux.byte_source import ByteSource

_HEADER = struct.Struct(">I4s")  # size, name
_LARGE_HEADER_BYTES = 16  # header of a box whose size takes 64 bits
_MAX_BOXES = 64  # read in search of the movie box, and returned by one search
_MAX_MOVIE_BYTES = 8 << 20
_ENTRIES_OFFSET = 8  # bytes before the boxes in a list of sample entries
_ENTRY_BOXES_OFFSET = 78  # bytes before the boxes in a video sample entry


def boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the name and body of each top-level box in ``data``, and stop at an invalid size."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, name = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size:
            return
        yield name, data[offset + _HEADER.size : offset + size]
        offset += size


def child_boxes(parents: Iterable[memoryview], wanted: bytes) -> list[memoryview]:
    """Return the bodies of the boxes called ``wanted`` directly inside ``parents``."""
    return [body for parent in parents for name, body in boxes(parent) if name == wanted][:_MAX_BOXES]


def read_movie_box(source: ByteSource) -> memoryview:
    """Return the body of the file's movie box; empty if it is not found or too large."""
    offset = 0
    for _ in range(_MAX_BOXES):
        header = source.read_all(offset, _LARGE_HEADER_BYTES)
        if len(header) < _LARGE_HEADER_BYTES:
            break
        size, name = _HEADER.unpack_from(header)
        if name == b"moov" and _HEADER.size <= size <= _MAX_MOVIE_BYTES:
            return memoryview(source.read_all(offset + _HEADER.size, size - _HEADER.size))
        size = int.from_bytes(header[_HEADER.size :]) if size == 1 else size
        if size < _HEADER.size:
            break
        offset += size
    return memoryview(b"")


def sample_descriptions(movie: memoryview) -> list[memoryview]:
    """Return the list of sample entries of each track in the movie box."""
    found = [movie]
    for name in (b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        found = child_boxes(found, name)
    return [each[_ENTRIES_OFFSET:] for each in found]


def entry_boxes(entry: memoryview) -> memoryview:
    """Return the boxes inside a video sample entry."""
    return entry[_ENTRY_BOXES_OFFSET:]
