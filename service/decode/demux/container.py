"""Opening a client's bytes with FFmpeg: which formats, which streams, and that nothing else is opened."""

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

from tubelet.service.decode.demux.byte_source import Source
from tubelet.service.decode.demux.timestamps import exact
from tubelet.service.decode.protocol import VideoRejected

# What PyAV raises on hostile bytes: its own errors, which also derive from OSError and others, and what its
# accessors raise when a header's values don't fit (zero time bases, text that is no text, huge numbers).
MEDIA_ERRORS = (av.error.FFmpegError, OSError, ValueError, EOFError, RuntimeError, ArithmeticError)

# Formats that carry video, and the plain audio ones so that they are told apart from garbage. None of them
# names other files by itself: playlists, manifests, session descriptions and image sequences stay outside.
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
_TAKEN = "mp4, mov, 3gp, mkv, webm, avi, flv, wmv, ts, mpg, ogv, gif, mxf, ivf or a raw video stream"
_NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent
# Text in a header that is not UTF-8 shall not stop anybody. From 19 on PyAV does that by itself.
LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
BUFFER_BYTES = 1 << 16
_ANALYSED_US = 500_000  # of a container without a header, in search of its streams; live ones wait for it


class SequentialReader:
    """The bytes of a source from the front, as a file object that cannot seek."""

    name = ""  # a name's ending would take part in guessing the format

    def __init__(self, source: Source) -> None:
        self.source = source
        self._position = 0

    def read(self, size: int) -> bytes:
        data = self.source.read(self._position, size)
        self._position += len(data)
        return data


class SeekableReader(SequentialReader):
    """A source whose size is known, as a file object with an offset of its own."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._cover, self._covered_at = b"", 0

    @property
    def size_bytes(self) -> int:
        return self.source.size_bytes or 0

    def cover(self, place: int, data: bytes) -> None:
        """Show these bytes from now on where others stand, and all others as they are."""
        self._cover, self._covered_at = data, place

    def read(self, size: int) -> bytes:
        within = self._position - self._covered_at
        if within < 0:
            return super().read(min(size, -within))
        if within >= len(self._cover):
            return super().read(size)
        data = self._cover[within : within + size]
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}
        position = base[whence & 3] + offset  # FFmpeg sets flags beyond the standard bits
        if position < 0:
            return -errno.EINVAL  # FFmpeg's way; an exception would come back up where the demuxer copes
        self._position = position
        return position

    def tell(self) -> int:
        return self._position


def open_container(source: Source, hwaccel: HWAccel | None = None) -> InputContainer:
    """Open it as one of ``FORMATS``; whatever other file it names stays closed.

    Raises:
        VideoRejected: NOT_A_VIDEO, UNSUPPORTED_VIDEO.
    """
    if source.size_bytes == 0:
        raise VideoRejected("NOT_A_VIDEO", "the file is empty")
    options = {
        "format_whitelist": ",".join(FORMATS),
        "protocol_whitelist": "none",
        "analyzeduration": str(_ANALYSED_US),
    }
    try:
        container = av.open(
            SequentialReader(source) if source.size_bytes is None else SeekableReader(source),
            mode="r",
            buffer_size=BUFFER_BYTES,
            container_options=options,
            io_open=_refuse_to_open,
            hwaccel=hwaccel,
            **LENIENT,
        )
    except MemoryError:
        raise
    except (av.error.ArgumentError, PermissionError) as error:
        # FFmpeg's answer to a format outside the whitelist, and to a file that names another.
        raise VideoRejected("UNSUPPORTED_VIDEO", f"the file is none of these: {_TAKEN}") from error
    except MEDIA_ERRORS as error:
        raise VideoRejected("NOT_A_VIDEO", "the file is not a video, or its header is damaged") from error
    # PyAV asks for it; it makes up stamps by reading ahead without a bound, and Clock needs none.
    container.flags &= ~Flags.gen_pts.value
    return container


def source_of(container: InputContainer) -> Source:
    """What a container is read from."""
    return _reader(container).source


def reader_of(container: InputContainer) -> SeekableReader:
    """Of one that was opened once the size of its source was known."""
    reader = _reader(container)
    assert isinstance(reader, SeekableReader)
    return reader


def _reader(container: InputContainer) -> SequentialReader:
    reader = container.file.file if container.file is not None else None
    assert isinstance(reader, SequentialReader)
    return reader


def candidates(container: InputContainer) -> list[int]:
    """The numbers of the streams that may be the video, the likeliest first.

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
        raise VideoRejected("UNSUPPORTED_VIDEO", "the video's codec is not one that can be decoded")
    known.sort(key=_likelihood, reverse=True)
    return [stream.index for stream in known]


def only_stream(container: InputContainer, index: int) -> VideoStream:
    """One stream of those; all others are not even read.

    Raises:
        VideoRejected: CORRUPT_VIDEO, it is gone on a second reading.
    """
    found = None
    for stream in container.streams:
        if stream.index == index and isinstance(stream, VideoStream):
            found = stream
        else:
            stream.discard = Discard.all
    if found is None:
        raise VideoRejected("CORRUPT_VIDEO", "the video's stream is gone on second reading")
    return found


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet | None]:
    """Every packet of the stream; None as the last one where the file breaks off."""
    try:
        yield from container.demux(stream)
    except MEDIA_ERRORS:  # among them: no memory for a packet that claims to be huge
        yield None


def is_end(packet: Packet) -> bool:
    """PyAV's sign that a stream is through, which flushes its decoder."""
    return packet.size == 0 and packet.dts is None


def _likelihood(stream: VideoStream) -> tuple[bool, bool, int, int]:
    """Sorts the video before its companions: it moves, is marked as default, large, early."""
    context = stream.codec_context
    is_default = bool(stream.disposition & Disposition.default)
    return not _is_item(stream), is_default, context.width * context.height, -stream.index


def _is_item(stream: VideoStream) -> bool:
    """A still picture, such as stands in an animated AVIF beside its track: one frame, of a second."""
    return stream.frames == 1 and exact(stream.time_base) == 1


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> object:
    raise PermissionError("a video may not open other files")


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
