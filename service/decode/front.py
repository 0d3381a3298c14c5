"""Which files can be decoded from the front while the rest of them is on its way, by their first bytes."""

import struct

from service.decode.source import Source

_EBML = b"\x1a\x45\xdf\xa3"  # Matroska, WebM
_FLV, _IVF = b"FLV\x01", b"DKIF"
_TS_PACKET, _TS_SYNC = 188, 0x47  # ISO 13818-1
_HEAD = 2 * _TS_PACKET + 1
_MAX_BOXES = 16  # before a movie box; files have a few


def plays_from_front(source: Source) -> bool:
    """Is all that a decoder must know at the front? Waits for as few bytes as it takes to tell."""
    head = source.read_all(0, _HEAD)
    if head.startswith((_EBML, _FLV, _IVF)):
        return True
    if len(head) == _HEAD and all(head[place] == _TS_SYNC for place in (0, _TS_PACKET, 2 * _TS_PACKET)):
        return True
    return head[4:8] in (b"ftyp", b"styp") and _movie_comes_first(source)


def _movie_comes_first(source: Source) -> bool:
    """Does an mp4 file have its movie box before its media data (ISO 14496-12, section 6.2)?"""
    place = 0
    for _ in range(_MAX_BOXES):
        header = source.read_all(place, 16)
        if len(header) < 16:
            return False
        size, kind, large = struct.unpack(">I4sQ", header)
        if kind in (b"moov", b"mdat"):
            return kind == b"moov"
        size = large if size == 1 else size
        if size < 8:
            return False
        place += size
    return False
