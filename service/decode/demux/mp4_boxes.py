"""The boxes of mp4 and mov files (ISO 14496-12). Whatever a file says, looking ends."""

import struct
from collections.abc import Iterable, Iterator

from tubelet.service.decode.demux.byte_source import Source

_HEAD = struct.Struct(">I4s")  # size, name
_LARGE_HEAD = 16  # bytes of one whose size takes 64 bits
_MAX_BOXES = 64  # before a movie box, and of a name in another one
_MAX_MOVIE_BYTES = 8 << 20
_ENTRIES_AT, _IN_ENTRY_AT = 8, 78  # bytes before the boxes of a list of sample entries, and of one of video


def boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes that lie beside each other: name, body. None from the first one on whose size is wrong."""
    place = 0
    while place + _HEAD.size <= len(data):
        size, name = _HEAD.unpack_from(data, place)
        if size < _HEAD.size:
            return
        yield name, data[place + _HEAD.size : place + size]
        place += size


def inside(parents: Iterable[memoryview], wanted: bytes) -> list[memoryview]:
    """The bodies of the boxes of a name that lie in these."""
    return [body for parent in parents for name, body in boxes(parent) if name == wanted][:_MAX_BOXES]


def movie_box(source: Source) -> memoryview:
    """The body of a file's movie box; nothing where it is not found, or is too large."""
    place = 0
    for _ in range(_MAX_BOXES):
        head = source.read_all(place, _LARGE_HEAD)
        if len(head) < _LARGE_HEAD:
            break
        size, name = _HEAD.unpack_from(head)
        if name == b"moov" and _HEAD.size <= size <= _MAX_MOVIE_BYTES:
            return memoryview(source.read_all(place + _HEAD.size, size - _HEAD.size))
        size = int.from_bytes(head[_HEAD.size :]) if size == 1 else size
        if size < _HEAD.size:
            break
        place += size
    return memoryview(b"")


def sample_descriptions(movie: memoryview) -> list[memoryview]:
    """The sample entries of each track."""
    found = [movie]
    for name in (b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        found = inside(found, name)
    return [each[_ENTRIES_AT:] for each in found]


def in_entry(entry: memoryview) -> memoryview:
    """The boxes in a sample entry of video."""
    return entry[_IN_ENTRY_AT:]
