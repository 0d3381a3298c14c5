"""One decoded frame -> RGB pixels as a viewer sees them, at the model's size.

H W C pixels of the result. "Stored" is how the codec keeps a picture; "shown" is after square pixels and
the display matrix (rotation by quarters, mirrors).
"""

from collections.abc import Set
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from tubelet.service.decode.demux.container_crop import WHOLE, Cropper, Cropping
from tubelet.service.decode.demux.hwaccel import in_memory
from tubelet.service.decode.pixels.colorspace import EXACT, QUICK, Converter, matrix
from tubelet.service.decode.pixels.crop import Trimmer
from tubelet.service.decode.pixels.deinterlace import FieldSeparator
from tubelet.service.decode.pixels.orientation import Area, orientation
from tubelet.service.decode.pixels.resample import resample
from tubelet.service.decode.pixels.tone_mapping import Tone, tone
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.types.video import Crop, PixelFormat

_MAX_ASPECT = 16  # pixels wider than this, or a longer side beyond this many targets, are squeezed to it


class Painter:
    """Frames of one video -> ``pixel_format``, of which ``crops`` will be cut; ``cropping`` is not seen."""

    def __init__(
        self,
        pixel_format: PixelFormat,
        aspect: Fraction | None,
        crops: Set[Crop],
        cropping: Cropping = WHOLE,
    ) -> None:
        self._format = pixel_format
        self._aspect = aspect
        self._crops = crops
        self._cropper = Cropper(cropping)
        self._trimmer = Trimmer()
        self._separator = FieldSeparator()
        self._converter = Converter(EXACT if pixel_format.resample == "swscale" else QUICK)

    def paint(self, frame: VideoFrame) -> "Picture":
        """
        Raises:
            VideoRejected: UNSUPPORTED_VIDEO, the stored pixel format has no conversion.
        """
        try:
            return self._painted(self._cropper.cropped(in_memory(frame)))
        except MemoryError:
            raise
        except FFmpegError as error:
            raise VideoRejected(
                "UNSUPPORTED_VIDEO", f"pixels stored as {frame.format.name} are not taken"
            ) from error

    def _painted(self, frame: VideoFrame) -> "Picture":
        laid = orientation(frame)
        width, height = _resized(self._format, frame.width, frame.height, laid.transpose, self._aspect)
        whole = Area(0, 0, height, width)
        pixels, part = self._still(
            frame, laid.stored(whole, height, width), laid.stored(self._wanted(whole), height, width)
        )
        part = laid.shown(part, height, width)
        return Picture(laid.apply(pixels), part, (height, width), self._format, tone(frame))

    def _wanted(self, whole: Area) -> Area:
        """What all crops lie in, of the shown picture."""
        if len(self._crops) != 1:
            return whole
        (crop,) = self._crops
        corner = self._format.corner(crop, whole.height, whole.width)
        return Area(*corner, self._format.height, self._format.width)

    def _still(self, frame: VideoFrame, whole: Area, wanted: Area) -> tuple[np.ndarray, Area]:
        """The picture at one moment, as stored, and which part of the whole it is.

        If swscale resizes it, it is no larger than what is ``wanted`` takes.
        """
        if frame.interlaced_frame:
            field = self._separator.first(frame)
            return field.settle(self._converted(field.frame, whole, matrix(frame))), whole
        still, part = frame, whole
        if self._format.resample == "swscale":
            still, part = self._trimmer.trimmed(frame, whole.height, whole.width, wanted)
        return self._converted(still, part, matrix(frame)), part

    def _converted(self, still: VideoFrame, part: Area, colours: Colorspace) -> np.ndarray:
        is_resized = self._format.resample == "swscale"
        size = (part.width, part.height) if is_resized else (still.width, still.height)
        return self._converter.convert(still, size, colours)


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame as it is shown, of which crops are cut. One made by swscale is resized already."""

    shown: np.ndarray  # (height, width, 3) uint8
    part: Area  # which it is of the resized picture
    resized: tuple[int, int]  # (height, width)
    format: PixelFormat
    tone: Tone | None

    def cut(self, crop: Crop) -> np.ndarray:
        """-> (H, W, 3) uint8"""
        target = self.format
        top, left = target.corner(crop, *self.resized)
        if target.resample == "swscale":
            top, left = top - self.part.top, left - self.part.left
            pixels = self.shown[top : top + target.height, left : left + target.width]
        else:
            area = (top, left, target.height, target.width)
            pixels = resample(self.shown, self.resized, area, target.resample)
        return pixels if self.tone is None else self.tone(pixels)


def display_size(frame: VideoFrame, aspect: Fraction | None, cropping: Cropping) -> tuple[int, int]:
    """The shown picture's (width, height): square pixels, upright."""
    shape = _shown_shape(*cropping.size(frame), orientation(frame).transpose, aspect)
    width, height = map(round, shape)
    return max(1, width), max(1, height)


@lru_cache(maxsize=16)
def _resized(
    target: PixelFormat, width: int, height: int, transpose: bool, aspect: Fraction | None
) -> tuple[int, int]:
    """The shown picture's size before a crop is cut out: (width, height)."""
    rows, columns = target.resized
    if target.resize == "stretch":
        return columns, rows
    wide, high = _shown_shape(width, height, transpose, aspect)
    scale = max(columns / wide, rows / high)
    return (
        min(max(int(wide * scale), columns), columns * _MAX_ASPECT),
        min(max(int(high * scale), rows), rows * _MAX_ASPECT),
    )


def _shown_shape(
    width: int, height: int, transpose: bool, aspect: Fraction | None
) -> tuple[Fraction, Fraction]:
    wide, high = Fraction(width), Fraction(height)
    if aspect is not None and Fraction(1, _MAX_ASPECT) <= aspect <= _MAX_ASPECT:
        wide *= aspect
    return (high, wide) if transpose else (wide, high)
