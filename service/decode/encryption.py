"""Whether a video is encrypted, and by which scheme: nobody here has its key.

FFmpeg decodes what is encrypted as if it were not, so that it seems to be damaged.
"""

import struct
from collections import Counter
from collections.abc import Iterator

from av.packet import Packet
from av.video.stream import VideoStream

from service.decode.boxes import boxes
from service.decode.protocol import Refusal
from service.decode.source import Source

_SIDE_DATA = "encryption_info"  # FFmpeg's of a packet of mp4: its scheme comes first
_WEBM_KEY = "ENC_KEY_ID"  # FFmpeg's of a stream of Matroska

_MAX_BOXES = 64  # before a movie box, and tracks in it
_MAX_MOVIE_BYTES = 8 << 20
_ENTRIES_AT, _IN_ENTRY_AT = 8, 78  # of the boxes in a list of sample entries, and in one of video

_TS_PACKET, _TS_SYNC = 188, 0x47  # ISO 13818-1
_TS_PACKETS = 4096  # that are looked at
_TS_STREAM, _TS_SCRAMBLED, _TS_PAYLOAD = 0x1FFF, 0xC0, 0x10
_TS_MOST = 0.5  # of a stream's packets that have a payload
_TS_FIELDS = struct.Struct(">BHB")  # sync, flags and stream, flags


def is_encrypted(packet: Packet) -> bool:
    return packet.has_sidedata(_SIDE_DATA)


def check_encryption(stream: VideoStream, first: Packet) -> None:
    """Raise ``Refusal`` UNSUPPORTED_VIDEO where the first packet of a stream is encrypted."""
    if is_encrypted(first):
        raise encrypted(_text(bytes(first.get_sidedata(_SIDE_DATA))[:4]))
    if any(name.upper() == _WEBM_KEY for name in stream.metadata):
        raise encrypted("WebM")


def encrypted(scheme: str) -> Refusal:
    """Why a video is not taken."""
    return Refusal("UNSUPPORTED_VIDEO", f"the video is encrypted ({scheme}); it can be taken once decrypted")


def stated_scheme(source: Source) -> str | None:
    """By which scheme a file that cannot be decoded says that its video is encrypted; None: it does not."""
    head = source.read_all(0, _TS_PACKET + 1)
    if len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == _TS_SYNC:
        return "MPEG-TS scrambling" if _is_scrambled(source.read_all(0, _TS_PACKETS * _TS_PACKET)) else None
    return next(_mp4_schemes(_movie(source)), None)


def _is_scrambled(packets: bytes) -> bool:
    """Most of what some stream of these brings is."""
    payloads, scrambled = Counter[int](), Counter[int]()
    for place in range(0, len(packets) - _TS_FIELDS.size + 1, _TS_PACKET):
        _, stream, flags = _TS_FIELDS.unpack_from(packets, place)
        payloads[stream & _TS_STREAM] += bool(flags & _TS_PAYLOAD)
        scrambled[stream & _TS_STREAM] += bool(flags & _TS_SCRAMBLED)
    return any(scrambled[stream] > payloads[stream] * _TS_MOST for stream in scrambled)


def _movie(source: Source) -> memoryview:
    """The movie box's body; nothing where it is not found, or too large."""
    place = 0
    for _ in range(_MAX_BOXES):
        header = source.read_all(place, 16)
        size = int.from_bytes(header[:4])
        size = int.from_bytes(header[8:16]) if size == 1 else size
        if header[4:8] == b"moov" and size <= _MAX_MOVIE_BYTES:
            return memoryview(source.read_all(place + 8, size - 8))
        if size < 8:
            break
        place += size
    return memoryview(b"")


def _mp4_schemes(movie: memoryview) -> Iterator[str]:
    """Of each track of video that is encrypted."""
    for track in _inside([movie], b"trak"):
        descriptions = [track]
        for name in (b"mdia", b"minf", b"stbl", b"stsd"):
            descriptions = _inside(descriptions, name)
        entries = [each[_ENTRIES_AT:] for each in descriptions]
        if _inside(entries, b"drmi"):
            yield "FairPlay"
        for entry in _inside(entries, b"encv"):
            schemes = _inside(_inside([entry[_IN_ENTRY_AT:]], b"sinf"), b"schm")
            yield _text(bytes(schemes[0][4:8])) if schemes else "mp4"


def _inside(parents: list[memoryview], wanted: bytes) -> list[memoryview]:
    """The bodies of all boxes of a name that lie in these."""
    return [body for parent in parents for name, body in boxes(parent) if name == wanted][:_MAX_BOXES]


def _text(scheme: bytes) -> str:
    """A code of four letters."""
    return "".join(chr(code) if chr(code).isalnum() and code < 128 else "?" for code in scheme)
