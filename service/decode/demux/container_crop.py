"""The visible part of the stored picture, as the container states it: Matroska's PixelCrop, mp4's ``clap``.

FFmpeg's demuxers read this (AV_PKT_DATA_FRAME_CROPPING) but PyAV does not expose it. FFmpeg's muxers write it
into the header of a new file, from which it is read here: so our parser never meets a client's bytes.
"""

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from io import BytesIO
from typing import NamedTuple

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.container import MEDIA_ERRORS
from tubelet.service.decode.demux.filter_graph import CachedFilterGraph
from tubelet.service.decode.demux.mp4_boxes import (
    boxes,
    child_boxes,
    entry_boxes,
    read_movie_box,
    sample_descriptions,
)

_FIELD_LINES = 2  # one line of each field

# Elements of Matroska (RFC 9559), from the outermost to the innermost.
_MATROSKA_VIDEO = (b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0")
_MATROSKA_SIDES = (b"\x54\xcc", b"\x54\xdd", b"\x54\xbb", b"\x54\xaa")
# the stored picture's size in a sample entry, and its offset there
_SIZE, _SIZE_AT = struct.Struct(">2H"), 24
# width, height, horizontal and vertical offset, each as numerator and denominator
_CLAP = struct.Struct(">4I4i")


class Cropping(NamedTuple):
    """The number of hidden pixels at each side of the stored picture."""

    left: int
    right: int
    top: int
    bottom: int

    def size(self, frame: VideoFrame) -> tuple[int, int]:
        """Return (width, height) of the visible part of ``frame``; all of it if the cropping is too large."""
        width, height = frame.width - self.left - self.right, frame.height - self.top - self.bottom
        return (width, height) if width > 0 and height > 0 else (frame.width, frame.height)


NO_CROPPING = Cropping(0, 0, 0, 0)


class Cropper:
    """A filter that crops the frames of one video without copying them."""

    def __init__(self, cropping: Cropping) -> None:
        self._cropping = cropping
        self._graph = CachedFilterGraph()

    def crop(self, frame: VideoFrame) -> VideoFrame:
        """Return the visible part of ``frame``.

        Raises:
            FFmpegError: frames of this pixel format cannot be cropped.
        """
        size = width, height = self._cropping.size(frame)
        if size == (frame.width, frame.height):
            return frame
        top = self._cropping.top
        if frame.interlaced_frame:
            top -= top % _FIELD_LINES  # keeps the first line in the first field
        area = f"{width}:{height}:{self._cropping.left}:{top}:exact=1"
        (part,) = self._graph.apply(frame, [("crop", area)])
        return part


def read_container_cropping(stream: VideoStream) -> Cropping:
    """Return the cropping that the container states for ``stream``; ``NO_CROPPING`` if none or invalid."""
    for muxer, read in _HEADER_PARSERS.items():
        try:
            found = read(_muxed_header(stream, muxer))
        except MemoryError:
            raise
        except (*MEDIA_ERRORS, LookupError, struct.error):
            continue  # this muxer does not support the codec
        return found if min(found) >= 0 else NO_CROPPING
    return NO_CROPPING


def correct_aspect_for_cropping(
    aspect: Fraction | None, stream: VideoStream, cropping: Cropping, source: ByteSource
) -> Fraction | None:
    """Return the pixel aspect ratio of ``stream``, for which FFmpeg reports ``aspect``.

    If an mp4 states no aspect ratio, FFmpeg derives one that fits the stored picture to the track's size.
    That size belongs to the cropped picture.
    """
    if aspect is None or cropping == NO_CROPPING or "mov" not in stream.container.format.name:
        return aspect
    entries = [entry for each in sample_descriptions(read_movie_box(source)) for _, entry in boxes(each)]
    if any(child_boxes([entry_boxes(entry)], b"pasp") for entry in entries):
        return aspect
    context = stream.codec_context
    width = context.width - cropping.left - cropping.right
    height = context.height - cropping.top - cropping.bottom
    if width <= 0 or height <= 0:
        return aspect
    return aspect * Fraction(context.width * height, context.height * width)


def _muxed_header(stream: VideoStream, muxer: str) -> bytes:
    """Return the header that ``muxer`` writes for a file with ``stream`` alone."""
    file = BytesIO()
    options = {"fflags": "+bitexact", "movflags": "empty_moov"}
    with av.open(file, "w", format=muxer, container_options=options) as copy:
        copy.add_stream_from_template(stream, opaque=True)
        copy.start_encoding()
        return file.getvalue()


def _parse_matroska(header: bytes) -> Cropping:
    """Read the PixelCrop elements in the header of a Matroska file with one track."""
    for element in _MATROSKA_VIDEO:
        header = dict(_ebml_elements(header))[element]
    found = dict(_ebml_elements(header))
    return Cropping(*(int.from_bytes(found.get(side, b"")) for side in _MATROSKA_SIDES))


def _ebml_elements(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the identifier and body of each element in ``data``, without those nested in them (RFC 8794)."""
    offset = 0
    while offset < len(data):
        start = offset + _vint_length(data[offset])
        body = start + _vint_length(data[start])
        size = int.from_bytes(data[start:body]) & ((1 << 7 * (body - start)) - 1)
        yield data[offset:start], data[body : body + size]
        offset = body + size


def _vint_length(first: int) -> int:
    """Return how many bytes a variable-size integer takes, given its first byte."""
    return 9 - first.bit_length()


def _parse_quicktime(header: bytes) -> Cropping:
    """Read the ``clap`` box in the header of a mov file with one track."""
    (movie,) = child_boxes([memoryview(header)], b"moov")
    _, entry = next(boxes(sample_descriptions(movie)[0]))
    claps = child_boxes([entry_boxes(entry)], b"clap")
    if not claps:
        return NO_CROPPING
    width, height = _SIZE.unpack_from(entry, _SIZE_AT)
    wide, _, high, _, across, across_part, down, down_part = _CLAP.unpack(claps[0])
    # The clap states the offset of its centre from the picture's centre.
    left = int(Fraction(width - wide, 2) + Fraction(across, across_part))
    top = int(Fraction(height - high, 2) + Fraction(down, down_part))
    return Cropping(left, width - wide - left, top, height - high - top)


_HEADER_PARSERS: dict[str, Callable[[bytes], Cropping]] = {
    "matroska": _parse_matroska,
    "mov": _parse_quicktime,
}
