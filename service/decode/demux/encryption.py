"""Detection of encrypted video, and of its encryption scheme.

FFmpeg decodes encrypted packets as if they were clear, so that the video would seem to be damaged.
"""

import struct
from collections import Counter
from collections.abc import Iterator

from av.packet import Packet
from av.video.stream import VideoStream

from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.mp4_boxes import (
    child_boxes,
    entry_boxes,
    read_movie_box,
    sample_descriptions,
)
from tubelet.service.decode.protocol import VideoRejected

_SIDE_DATA = "encryption_info"  # FFmpeg's side data of an mp4 packet; it begins with the scheme
_WEBM_KEY = "ENC_KEY_ID"  # FFmpeg's metadata of a Matroska stream

_MP4_STARTS = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"wide")  # names that the first box may have

_TS_PACKET, _TS_SYNC = 188, 0x47  # ISO 13818-1
_TS_PACKETS_CHECKED = 4096
_TS_STREAM, _TS_SCRAMBLED, _TS_PAYLOAD = 0x1FFF, 0xC0, 0x10
_TS_SCRAMBLED_SHARE = 0.5  # of a stream's packets with a payload; more are no accident
_TS_FIELDS = struct.Struct(">BHB")  # sync, flags and stream, flags


def is_encrypted(packet: Packet) -> bool:
    """Whether FFmpeg marks ``packet``, from an mp4, as encrypted."""
    return packet.has_sidedata(_SIDE_DATA)


def check_encryption(stream: VideoStream, first: Packet) -> None:
    """Raise ``VideoRejected`` UNSUPPORTED_VIDEO if ``first``, the first packet of a stream, is encrypted."""
    if is_encrypted(first):
        raise encrypted_video_error(_printable_code(bytes(first.get_sidedata(_SIDE_DATA))[:4]))
    if any(name.upper() == _WEBM_KEY for name in stream.metadata):
        raise encrypted_video_error("WebM")


def encrypted_video_error(scheme: str) -> VideoRejected:
    """Create the ``VideoRejected`` of a video that is encrypted by ``scheme``."""
    return VideoRejected("UNSUPPORTED_VIDEO", f"the video is encrypted ({scheme}); decrypt it first")


def find_encryption_scheme(source: ByteSource) -> str | None:
    """Return the encryption scheme that a file states which cannot be decoded; None if it states none."""
    start = source.read_all(0, _TS_PACKET + 1)
    if len(start) > _TS_PACKET and start[0] == start[_TS_PACKET] == _TS_SYNC:
        return (
            "MPEG-TS scrambling"
            if _is_scrambled(source.read_all(0, _TS_PACKETS_CHECKED * _TS_PACKET))
            else None
        )
    return next(_mp4_schemes(read_movie_box(source)), None) if start[4:8] in _MP4_STARTS else None


def _is_scrambled(packets: bytes) -> bool:
    """Whether some MPEG-TS stream in ``packets`` has mostly scrambled packets."""
    payloads, scrambled = Counter[int](), Counter[int]()
    for offset in range(0, len(packets) - _TS_FIELDS.size + 1, _TS_PACKET):
        _, stream, flags = _TS_FIELDS.unpack_from(packets, offset)
        payloads[stream & _TS_STREAM] += bool(flags & _TS_PAYLOAD)
        scrambled[stream & _TS_STREAM] += bool(flags & _TS_SCRAMBLED)
    return any(scrambled[stream] > payloads[stream] * _TS_SCRAMBLED_SHARE for stream in scrambled)


def _mp4_schemes(movie: memoryview) -> Iterator[str]:
    """Yield the encryption scheme of each encrypted video track in the movie box."""
    descriptions = sample_descriptions(movie)
    for entry in child_boxes(descriptions, b"encv"):
        schemes = child_boxes(child_boxes([entry_boxes(entry)], b"sinf"), b"schm")
        yield _printable_code(bytes(schemes[0][4:8])) if schemes else "mp4"
    if child_boxes(descriptions, b"drmi"):
        yield "FairPlay"


def _printable_code(scheme: bytes) -> str:
    """Decode a four-letter code, with ``?`` for each byte that is no ASCII letter or digit."""
    return "".join(chr(code) if chr(code).isalnum() and code < 128 else "?" for code in scheme)
