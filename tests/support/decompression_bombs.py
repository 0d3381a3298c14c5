"""Small valid videos that cost FFmpeg much time or memory to decode."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

_RATE = 10


def render_long_call(path: Path, frames: int) -> Path:
    """Write four seconds of H.264; one packet holds ``frames`` frames of 2048 x 2048, decoded in one call.

    Each of these frames repeats the last one: it has 26 bytes, and takes more than half a millisecond.
    """
    size = 2048
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width = encoder.height = size
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, _RATE), Fraction(_RATE)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    pictures: list[bytes] = []
    for number in range(20):
        frame = av.VideoFrame.from_ndarray(np.zeros((size, size, 3), np.uint8), format="rgb24")
        frame.pts = number
        pictures += [bytes(packet) for packet in encoder.encode(frame)]
    first, *unchanged = pictures
    return _mux(path, "libx264", size, [first, *unchanged, unchanged[-1] * frames, *unchanged])


def render_growing_frames(path: Path, side: int) -> Path:
    """Write a mov of PNG frames: ten small ones, then ten black ones of ``side`` x ``side``."""
    small, large = _png(64), _png(side)
    return _mux(path, "png", 64, [small] * 10 + [large] * 10)


def _png(side: int) -> bytes:
    """Return a black PNG image of ``side`` x ``side``."""
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, "png")
    return out.getvalue()


def _mux(path: Path, codec: str, size: int, packets: list[bytes]) -> Path:
    """Write ``packets`` into a container, one a frame period."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=_RATE)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = size
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, _RATE)
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, number == 0 or codec == "png"
            container.mux(packet)
    return path
