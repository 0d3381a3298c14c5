"""Opening of a client's file with FFmpeg: accepted formats and streams, and no access to other files."""

import errno
import os
import struct
from collections.abc import Iterator
from typing import Any

import av
import av.error
from av.codec.hwaccel import HWAccel
from av.container import Flags, InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.timestamps import to_fraction
from tubelet.service.decode.protocol import VideoRejected

# The errors that PyAV raises on hostile bytes: its own, which also derive from OSError and others, and those
# of its accessors for header values that don't fit (zero time bases, invalid text, huge numbers).
MEDIA_ERRORS = (av.error.FFmpegError, OSError, ValueError, EOFError, RuntimeError, ArithmeticError)

# Formats that carry video, and plain audio formats, so that audio is not reported as garbage. None of them
# names other files by itself: playlists, manifests, session descriptions and image sequences are left out.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "flv",
    "asf",
    "mpegts",
    "mpeg",
    "mpegvideo",
    "m4v",
    "h261",
    "h263",
    "h264",
    "hevc",
    "av1",
    "obu",
    "vvc",
    "ivf",
    "ogg",
    "gif",
    "mxf",
    "pmp",
    "wav",
    "mp3",
    "aac",
    "ac3",
    "flac",
    "aiff",
    "amr",
)
_SUPPORTED = "mp4, mov, 3gp, mkv, webm, avi, flv, wmv, ts, mpg, ogv, gif, mxf, ivf or a raw video stream"
_NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent
# Header text that is not UTF-8 must not stop decoding. From version 19 on, this is PyAV's default.
LENIENT_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
BUFFER_BYTES = 1 << 16
# limit on the search for streams in a container without a header; a live upload waits for it
_ANALYZE_DURATION_US = 500_000


class SequentialReader:
    """A file object that reads a byte source from its beginning and cannot seek."""

    name = ""  # empty, because FFmpeg guesses the format by the ending of a name

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self._position = 0

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes at the current position, waiting for them."""
        data = self.source.read(self._position, size)
        self._position += len(data)
        return data


class SeekableReader(SequentialReader):
    """A file object with a position of its own, for a byte source whose size is known."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the current position; a position before the file's beginning returns ``-EINVAL``."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.source.size_bytes or 0}
        position = base[whence & 3] + offset  # FFmpeg sets flags beyond the two standard bits
        if position < 0:
            # FFmpeg's convention: an exception would surface although the demuxer can continue
            return -errno.EINVAL
        self._position = position
        return position

    def tell(self) -> int:
        """Return the current position."""
        return self._position


def open_container(source: ByteSource, hwaccel: HWAccel | None = None) -> InputContainer:
    """Open ``source`` as one of ``FORMATS``; the other files that it names are never opened.

    Raises:
        VideoRejected: NOT_A_VIDEO, UNSUPPORTED_VIDEO.
    """
    if source.size_bytes == 0:
        raise VideoRejected("NOT_A_VIDEO", "the file is empty")
    options = {
        "format_whitelist": ",".join(FORMATS),
        "protocol_whitelist": "none",
        "analyzeduration": str(_ANALYZE_DURATION_US),
    }
    try:
        container = av.open(
            SequentialReader(source) if source.size_bytes is None else SeekableReader(source),
            mode="r",
            buffer_size=BUFFER_BYTES,
            container_options=options,
            io_open=_deny_open,
            hwaccel=hwaccel,
            **LENIENT_METADATA,
        )
    except MemoryError:
        raise
    except (av.error.ArgumentError, PermissionError) as error:
        # FFmpeg reports a format outside the whitelist, or a reference to another file, with these errors.
        raise VideoRejected("UNSUPPORTED_VIDEO", f"unsupported container; supported: {_SUPPORTED}") from error
    except MEDIA_ERRORS as error:
        raise VideoRejected("NOT_A_VIDEO", "the file is not a video, or its header is damaged") from error
    # PyAV sets this flag. It invents timestamps by reading ahead without a bound; FrameClock needs none.
    container.flags &= ~Flags.gen_pts.value
    return container


def byte_source_of(container: InputContainer) -> ByteSource:
    """Return the byte source that ``container`` is read from."""
    reader = container.file.file if container.file is not None else None
    assert isinstance(reader, SequentialReader)
    return reader.source


def candidate_streams(container: InputContainer) -> list[int]:
    """Return the indices of the streams that may be the video, the likeliest first.

    Raises:
        VideoRejected: NO_VIDEO_STREAM, UNSUPPORTED_VIDEO.
    """
    real = [stream for stream in container.streams.video if not stream.disposition & _NO_VIDEO]
    if not real:
        pictures = len(container.streams.video) > 0
        count = len(container.streams)
        streams = "1 stream" if count == 1 else f"{count} streams"
        found = "only a still cover picture" if pictures else f"{streams}, none of video"
        raise VideoRejected("NO_VIDEO_STREAM", f"the file has no video stream: {found}")
    known = [stream for stream in real if stream.codec_context is not None]
    if not known:
        raise VideoRejected("UNSUPPORTED_VIDEO", "the video's codec is not supported")
    known.sort(key=_rank, reverse=True)
    return [stream.index for stream in known]


def select_stream(container: InputContainer, index: int) -> VideoStream:
    """Return the video stream at ``index`` and discard the packets of all others.

    Raises:
        VideoRejected: CORRUPT_VIDEO, the stream is missing when the file is read again.
    """
    found = None
    for stream in container.streams:
        if stream.index == index and isinstance(stream, VideoStream):
            found = stream
        else:
            stream.discard = Discard.all
    if found is None:
        raise VideoRejected("CORRUPT_VIDEO", "the video stream disappeared when the file was read again")
    return found


def demux_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet | None]:
    """Yield every packet of ``stream``, and at last None if the file is truncated."""
    try:
        yield from container.demux(stream)
    except MEDIA_ERRORS:  # including lack of memory for a packet that claims to be huge
        yield None


def is_end_of_stream(packet: Packet) -> bool:
    """Whether ``packet`` is the empty one with which PyAV ends a stream, to flush its decoder."""
    return packet.size == 0 and packet.dts is None


def _rank(stream: VideoStream) -> tuple[bool, bool, int, int]:
    """Return a sort key for candidates: moving, default, large and early streams rank highest."""
    context = stream.codec_context
    is_default = bool(stream.disposition & Disposition.default)
    return not _is_still_image_item(stream), is_default, context.width * context.height, -stream.index


def _is_still_image_item(stream: VideoStream) -> bool:
    """Whether ``stream`` is a still picture of one second, as an animated AVIF has beside its track."""
    return stream.frames == 1 and to_fraction(stream.time_base) == 1


def _deny_open(url: str, flags: int, options: dict[str, str]) -> object:
    """Refuse to open a file that the video names."""
    raise PermissionError("a video may not open other files")


_EBML = b"\x1a\x45\xdf\xa3"  # Matroska, WebM
_FLV, _IVF = b"FLV\x01", b"DKIF"
_TS_PACKET, _TS_SYNC = 188, 0x47  # ISO 13818-1
_SIGNATURE_BYTES = 2 * _TS_PACKET + 1
_MAX_BOXES = 16  # read in search of the movie box; files have a few


def is_progressive(source: ByteSource) -> bool:
    """Whether decoding can start at the file's beginning; waits for as few bytes as show it."""
    signature = source.read_all(0, _SIGNATURE_BYTES)
    if signature.startswith((_EBML, _FLV, _IVF)):
        return True
    if len(signature) == _SIGNATURE_BYTES and all(
        signature[offset] == _TS_SYNC for offset in (0, _TS_PACKET, 2 * _TS_PACKET)
    ):
        return True
    return signature[4:8] in (b"ftyp", b"styp") and _has_movie_box_before_media(source)


def _has_movie_box_before_media(source: ByteSource) -> bool:
    """Whether an mp4 has its movie box before its media data (ISO 14496-12, section 6.2)."""
    offset = 0
    for _ in range(_MAX_BOXES):
        header = source.read_all(offset, 16)
        if len(header) < 16:
            return False
        size, kind, large = struct.unpack(">I4sQ", header)
        if kind in (b"moov", b"mdat"):
            return kind == b"moov"
        size = large if size == 1 else size
        if size < 8:
            return False
        offset += size
    return False
