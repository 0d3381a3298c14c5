"""Whether a video is encrypted, and by which scheme.

FFmpeg decodes encrypted packets as if they were clear, so that the video seems to be damaged.
"""

import struct
from collections import Counter
from collections.abc import Iterator

from av.packet import Packet
from av.video.stream import VideoStream

from tubelet.service.decode.demux.byte_source import Source
from tubelet.service.decode.demux.mp4_boxes import in_entry, inside, movie_box, sample_descriptions
from tubelet.service.decode.protocol import VideoRejected

_SIDE_DATA = "encryption_info"  # FFmpeg's of a packet of mp4: its scheme comes first
_WEBM_KEY = "ENC_KEY_ID"  # FFmpeg's of a stream of Matroska

_MP4_STARTS = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"wide")  # names of the first box

_TS_PACKET, _TS_SYNC = 188, 0x47  # ISO 13818-1
_TS_PACKETS = 4096  # that are looked at
_TS_STREAM, _TS_SCRAMBLED, _TS_PAYLOAD = 0x1FFF, 0xC0, 0x10
_TS_MOST = 0.5  # of a stream's packets that have a payload
_TS_FIELDS = struct.Struct(">BHB")  # sync, flags and stream, flags


def is_encrypted(packet: Packet) -> bool:
    """Whether FFmpeg says so of a packet of mp4."""
    return packet.has_sidedata(_SIDE_DATA)


def check_encryption(stream: VideoStream, first: Packet) -> None:
    """Raise ``VideoRejected`` UNSUPPORTED_VIDEO where the first packet of a stream is encrypted."""
    if is_encrypted(first):
        raise encrypted(_text(bytes(first.get_sidedata(_SIDE_DATA))[:4]))
    if any(name.upper() == _WEBM_KEY for name in stream.metadata):
        raise encrypted("WebM")


def encrypted(scheme: str) -> VideoRejected:
    """The refusal of a video that this scheme encrypts."""
    return VideoRejected(
        "UNSUPPORTED_VIDEO", f"the video is encrypted ({scheme}); it can be taken once decrypted"
    )


def stated_scheme(source: Source) -> str | None:
    """By which scheme a file that cannot be decoded says that its video is encrypted; None: it does not."""
    head = source.read_all(0, _TS_PACKET + 1)
    if len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == _TS_SYNC:
        return "MPEG-TS scrambling" if _is_scrambled(source.read_all(0, _TS_PACKETS * _TS_PACKET)) else None
    return next(_mp4_schemes(movie_box(source)), None) if head[4:8] in _MP4_STARTS else None


def _is_scrambled(packets: bytes) -> bool:
    """Whether most packets of some stream of MPEG-TS are scrambled."""
    payloads, scrambled = Counter[int](), Counter[int]()
    for place in range(0, len(packets) - _TS_FIELDS.size + 1, _TS_PACKET):
        _, stream, flags = _TS_FIELDS.unpack_from(packets, place)
        payloads[stream & _TS_STREAM] += bool(flags & _TS_PAYLOAD)
        scrambled[stream & _TS_STREAM] += bool(flags & _TS_SCRAMBLED)
    return any(scrambled[stream] > payloads[stream] * _TS_MOST for stream in scrambled)


def _mp4_schemes(movie: memoryview) -> Iterator[str]:
    """Of each track of video that is encrypted."""
    descriptions = sample_descriptions(movie)
    for entry in inside(descriptions, b"encv"):
        schemes = inside(inside([in_entry(entry)], b"sinf"), b"schm")
        yield _text(bytes(schemes[0][4:8])) if schemes else "mp4"
    if inside(descriptions, b"drmi"):
        yield "FairPlay"


def _text(scheme: bytes) -> str:
    """A code of four letters."""
    return "".join(chr(code) if chr(code).isalnum() and code < 128 else "?" for code in scheme)
