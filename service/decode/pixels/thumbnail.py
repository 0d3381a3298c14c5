"""Thumbnails of decoded frames: the whole picture as a viewer sees it, small, as JPEG."""

from fractions import Fraction
from io import BytesIO

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from tubelet.models.spec import Preprocessing
from tubelet.service.decode.demux.container_crop import Cropping
from tubelet.service.decode.pixels.rgb_converter import RgbConverter, display_size
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.types.video import MAX_THUMBNAIL_BYTES, MAX_THUMBNAIL_SIDE, Thumbnail

_QUALITIES = (80, 40, 10)  # of JPEG; the first that is small enough. Only noise needs another than the first


class ThumbnailEncoder:
    """An encoder of thumbnails of one video; its scalers are reused while frames stay alike.

    ``aspect`` is that of the pixels, ``cropping`` the hidden part of the stored picture.
    """

    def __init__(self, aspect: Fraction | None, cropping: Cropping) -> None:
        self._aspect = aspect
        self._cropping = cropping
        self._size = 0, 0
        self._converter: RgbConverter

    def encode(self, frame: VideoFrame, time_ns: int) -> Thumbnail | None:
        """Return the thumbnail of ``frame``, shown at ``time_ns``; None if such a picture has none."""
        size = _fitted(*display_size(frame, self._aspect, self._cropping))
        if size != self._size:
            self._size = size
            self._converter = RgbConverter(_stretched(*size), self._aspect, {"centre"}, self._cropping)
        try:
            pixels = self._converter.convert(frame).crop("centre")
        except VideoRejected:  # the model's size may be possible where this one is not
            return None
        return Thumbnail(time_ns, *size, _to_jpeg(pixels))


def _fitted(width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) of a picture scaled down to the size of thumbnails."""
    scale = min(1.0, MAX_THUMBNAIL_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _stretched(width: int, height: int) -> Preprocessing:
    """Return the preprocessing that shows the whole picture at a size that has its aspect ratio."""
    return Preprocessing(height, width, "stretch", mean=(0, 0, 0), std=(1, 1, 1))


def _to_jpeg(pixels: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 as a JPEG of at most ``MAX_THUMBNAIL_BYTES``."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    data = b""
    for quality in _QUALITIES:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        data = file.getvalue()
        if len(data) <= MAX_THUMBNAIL_BYTES:
            break
    return data


def preload() -> None:
    """Make Pillow import its JPEG encoder, before the process may no longer open files."""
    _to_jpeg(np.zeros((2, 2, 3), np.uint8))
