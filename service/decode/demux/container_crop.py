"""The part of the stored picture that a container says is to be seen: PixelCrop of Matroska, ``clap`` of mp4.

FFmpeg's demuxers know it (AV_PKT_DATA_FRAME_CROPPING) and PyAV does not show it, but FFmpeg's muxers write it
into the header of a new file: it is read from there, so that no parser of ours meets a client's bytes.
"""

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from io import BytesIO
from typing import NamedTuple

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tubelet.service.decode.demux.byte_source import Source
from tubelet.service.decode.demux.container import MEDIA_ERRORS
from tubelet.service.decode.demux.filter_graph import KeptGraph
from tubelet.service.decode.demux.mp4_boxes import boxes, in_entry, inside, movie_box, sample_descriptions

_PAIR = 2  # lines, one of each field

# Elements of Matroska (RFC 9559), from the outside to what is inside.
_MATROSKA_VIDEO = (b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0")
_MATROSKA_SIDES = (b"\x54\xcc", b"\x54\xdd", b"\x54\xbb", b"\x54\xaa")
_SIZE, _SIZE_AT = struct.Struct(">2H"), 24  # the stored picture's, in an entry
_CLAP = struct.Struct(">4I4i")  # numerators and denominators: a size, and an offset


class Cropping(NamedTuple):
    """How many pixels of each side are not seen."""

    left: int
    right: int
    top: int
    bottom: int

    def size(self, frame: VideoFrame) -> tuple[int, int]:
        """What is seen of a frame: (width, height). All of one that has no such sides."""
        width, height = frame.width - self.left - self.right, frame.height - self.top - self.bottom
        return (width, height) if width > 0 and height > 0 else (frame.width, frame.height)


WHOLE = Cropping(0, 0, 0, 0)


class Cropper:
    """Crops the frames of one video, without a copy."""

    def __init__(self, cropping: Cropping) -> None:
        self._cropping = cropping
        self._graph = KeptGraph()

    def cropped(self, frame: VideoFrame) -> VideoFrame:
        """
        Raises:
            FFmpegError: frames of this pixel format cannot be cropped.
        """
        size = width, height = self._cropping.size(frame)
        if size == (frame.width, frame.height):
            return frame
        top = self._cropping.top
        if frame.interlaced_frame:
            top -= top % _PAIR  # the first line stays one of the first field
        area = f"{width}:{height}:{self._cropping.left}:{top}:exact=1"
        (part,) = self._graph.filtered(frame, [("crop", area)])
        return part


def container_cropping(stream: VideoStream) -> Cropping:
    """What the container of a stream says; ``WHOLE``, too, for what makes no sense."""
    for muxer, read in _READERS.items():
        try:
            found = read(_header(stream, muxer))
        except MemoryError:
            raise
        except (*MEDIA_ERRORS, LookupError, struct.error):
            continue  # this muxer does not know the codec
        return found if min(found) >= 0 else WHOLE
    return WHOLE


def cropped_aspect(
    aspect: Fraction | None, stream: VideoStream, cropping: Cropping, source: Source
) -> Fraction | None:
    """The aspect of a pixel, of a stream for which FFmpeg says ``aspect``.

    Where an mp4 states none, FFmpeg makes up one that gives the stored picture the size of the track. That
    is the size of the cropped one.
    """
    if aspect is None or cropping == WHOLE or "mov" not in stream.container.format.name:
        return aspect
    entries = [entry for each in sample_descriptions(movie_box(source)) for _, entry in boxes(each)]
    if any(inside([in_entry(entry)], b"pasp") for entry in entries):
        return aspect
    context = stream.codec_context
    width = context.width - cropping.left - cropping.right
    height = context.height - cropping.top - cropping.bottom
    if width <= 0 or height <= 0:
        return aspect
    return aspect * Fraction(context.width * height, context.height * width)


def _header(stream: VideoStream, muxer: str) -> bytes:
    """The header of a file of this stream alone."""
    file = BytesIO()
    options = {"fflags": "+bitexact", "movflags": "empty_moov"}
    with av.open(file, "w", format=muxer, container_options=options) as copy:
        copy.add_stream_from_template(stream, opaque=True)
        copy.start_encoding()
        return file.getvalue()


def _matroska(header: bytes) -> Cropping:
    for element in _MATROSKA_VIDEO:
        header = dict(_elements(header))[element]
    found = dict(_elements(header))
    return Cropping(*(int.from_bytes(found.get(side, b"")) for side in _MATROSKA_SIDES))


def _elements(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Elements that lie beside each other (RFC 8794): identifier, body."""
    place = 0
    while place < len(data):
        start = place + _length(data[place])
        body = start + _length(data[start])
        size = int.from_bytes(data[start:body]) & ((1 << 7 * (body - start)) - 1)
        yield data[place:start], data[body : body + size]
        place = body + size


def _length(first: int) -> int:
    """How many bytes a number of variable size takes, by its first one."""
    return 9 - first.bit_length()


def _quicktime(header: bytes) -> Cropping:
    (movie,) = inside([memoryview(header)], b"moov")
    _, entry = next(boxes(sample_descriptions(movie)[0]))
    claps = inside([in_entry(entry)], b"clap")
    if not claps:
        return WHOLE
    width, height = _SIZE.unpack_from(entry, _SIZE_AT)
    wide, _, high, _, across, across_part, down, down_part = _CLAP.unpack(claps[0])
    # The clap has the offset of its middle from the picture's middle.
    left = int(Fraction(width - wide, 2) + Fraction(across, across_part))
    top = int(Fraction(height - high, 2) + Fraction(down, down_part))
    return Cropping(left, width - wide - left, top, height - high - top)


_READERS: dict[str, Callable[[bytes], Cropping]] = {"matroska": _matroska, "mov": _quicktime}
