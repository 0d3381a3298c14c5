"""The process that encodes a converted video: raw RGB pictures on standard input, an mp4 on standard output.

It never sees a client's bytes: a sandboxed worker has decoded them. H W C pixels of a picture.
"""

import json
import sys
from fractions import Fraction
from io import BytesIO
from typing import BinaryIO

import av
import numpy as np
from av.container.output import OutputContainer
from av.video.reformatter import ColorRange, Colorspace

from tubelet.service.report.own_files import COMMENT_MARK
from tubelet.service.types.video import NS_PER_S

_TICKS_PER_S = 90_000
_KEY_FRAME_EVERY_S = 2  # a player seeks to a key frame, and decodes from there
_QUALITY = 26  # x264's constant rate factor: lower is better and larger
_BT709 = 1  # ITU-T H.273: primaries, transfer and matrix


def encode(pictures: BinaryIO, *, width: int, height: int, frame_ns: int, bits_per_s: int) -> bytes:
    """Encode RGB pictures, each H x W x 3 bytes, until their end, as H.264 in an mp4.

    Each is shown for ``frame_ns``; ``bits_per_s`` is the most that they take.
    """
    packed = BytesIO()
    with av.open(packed, "w", format="mp4") as container:
        container.metadata["comment"] = COMMENT_MARK
        stream = _add_stream(container, Fraction(NS_PER_S, frame_ns).limit_denominator(1000), bits_per_s)
        stream.width, stream.height = width, height
        picture = np.empty((height, width, 3), np.uint8)
        number = 0
        while pictures.readinto(memoryview(picture).cast("B")) == picture.nbytes:  # type: ignore[attr-defined]
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            frame.pts = number * frame_ns * _TICKS_PER_S // NS_PER_S
            frame.time_base = Fraction(1, _TICKS_PER_S)
            container.mux(stream.encode(frame))
            number += 1
        container.mux(stream.encode(None))
    return packed.getvalue()


def _add_stream(container: OutputContainer, fps: Fraction, bits_per_s: int) -> av.VideoStream:
    """Add a stream of H.264 with 8-bit 4:2:0 pictures, which every browser plays."""
    options = {
        "preset": "veryfast",
        "crf": str(_QUALITY),
        "maxrate": str(bits_per_s),
        "bufsize": str(2 * bits_per_s),
        "g": str(max(1, round(_KEY_FRAME_EVERY_S * fps))),
    }
    stream = container.add_stream("libx264", rate=fps, options=options)
    stream.pix_fmt = "yuv420p"
    codec = stream.codec_context
    codec.time_base = Fraction(1, _TICKS_PER_S)
    codec.colorspace, codec.color_range = _BT709, ColorRange.MPEG
    codec.color_primaries, codec.color_trc = _BT709, _BT709
    return stream


if __name__ == "__main__":
    sys.stdout.buffer.write(encode(sys.stdin.buffer, **json.loads(sys.argv[1])))
