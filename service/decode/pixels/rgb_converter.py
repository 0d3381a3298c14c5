"""Conversion of a decoded frame to RGB pixels as a viewer sees them, at the model's size.

H W C pixels of the result. "Stored" is how the codec keeps a picture; "shown" is the picture with square
pixels and the display matrix applied (rotation by quarters, mirroring).
"""

from collections.abc import Set
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from tubelet.models.spec import Preprocessing
from tubelet.service.decode.demux.container_crop import NO_CROPPING, Cropper, Cropping
from tubelet.service.decode.demux.hwaccel import to_host_memory
from tubelet.service.decode.pixels.colorspace import ACCURATE, FAST, ColorspaceConverter, colorspace_of
from tubelet.service.decode.pixels.crop import SourceCropper
from tubelet.service.decode.pixels.deinterlace import Deinterlacer
from tubelet.service.decode.pixels.geometry import MAX_ASPECT, crop_corner, resized_size
from tubelet.service.decode.pixels.orientation import Area, read_orientation
from tubelet.service.decode.pixels.resample import resample
from tubelet.service.decode.pixels.tone_mapping import ToneMap, tone_map_for
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.types.video import Crop


class RgbConverter:
    """A converter of the frames of one video to ``preprocessing``.

    ``crops`` are all crops that will be taken; ``cropping`` is the hidden part of the stored picture.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        aspect: Fraction | None,
        crops: Set[Crop],
        cropping: Cropping = NO_CROPPING,
    ) -> None:
        self._format = preprocessing
        self._aspect = aspect
        self._crops = crops
        self._cropper = Cropper(cropping)
        self._source_cropper = SourceCropper()
        self._deinterlacer = Deinterlacer()
        self._converter = ColorspaceConverter(ACCURATE if preprocessing.resample == "swscale" else FAST)

    def convert(self, frame: VideoFrame) -> "RgbPicture":
        """Convert ``frame`` to a picture from which crops can be taken.

        Raises:
            VideoRejected: UNSUPPORTED_VIDEO, the stored pixel format has no conversion.
        """
        try:
            return self._to_picture(self._cropper.crop(to_host_memory(frame)))
        except MemoryError:
            raise
        except FFmpegError as error:
            raise VideoRejected(
                "UNSUPPORTED_VIDEO", f"unsupported pixel format: {frame.format.name}"
            ) from error

    def _to_picture(self, frame: VideoFrame) -> "RgbPicture":
        """Convert ``frame``, which is cropped and in host memory."""
        orientation = read_orientation(frame)
        width, height = _resized_size(
            self._format, frame.width, frame.height, orientation.transpose, self._aspect
        )
        whole = Area(0, 0, height, width)
        pixels, part = self._single_field(
            frame,
            orientation.to_stored(whole, height, width),
            orientation.to_stored(self._crops_area(whole), height, width),
        )
        part = orientation.to_shown(part, height, width)
        return RgbPicture(orientation.apply(pixels), part, (height, width), self._format, tone_map_for(frame))

    def _crops_area(self, whole: Area) -> Area:
        """Return the area of the shown picture ``whole`` that contains all crops."""
        if len(self._crops) != 1:
            return whole
        (crop,) = self._crops
        corner = crop_corner(self._format, crop, (whole.height, whole.width))
        return Area(*corner, self._format.height, self._format.width)

    def _single_field(self, frame: VideoFrame, whole: Area, wanted: Area) -> tuple[np.ndarray, Area]:
        """Return the RGB picture at one moment, as stored, and its area in the picture.

        If swscale resizes it, it is no larger than ``wanted`` requires.
        """
        if frame.interlaced_frame:
            field = self._deinterlacer.first_field(frame)
            return field.align(self._to_rgb(field.frame, whole, colorspace_of(frame))), whole
        still, part = frame, whole
        if self._format.resample == "swscale":
            still, part = self._source_cropper.crop(frame, whole.height, whole.width, wanted)
        return self._to_rgb(still, part, colorspace_of(frame)), part

    def _to_rgb(self, still: VideoFrame, part: Area, colours: Colorspace) -> np.ndarray:
        """Convert ``still`` to RGB, resized to ``part`` if swscale resizes."""
        is_resized = self._format.resample == "swscale"
        size = (part.width, part.height) if is_resized else (still.width, still.height)
        return self._converter.convert(still, size, colours)


@dataclass(frozen=True, slots=True)
class RgbPicture:
    """A frame as it is shown, from which crops are taken; one made by swscale is resized already."""

    shown: np.ndarray  # (height, width, 3) uint8
    part: Area  # the area of the resized picture that this is
    resized: tuple[int, int]  # (height, width)
    format: Preprocessing
    tone_map: ToneMap | None

    def crop(self, crop: Crop) -> np.ndarray:
        """Return ``crop`` at the model's size -> (H, W, 3) uint8."""
        target = self.format
        top, left = crop_corner(target, crop, self.resized)
        if target.resample == "swscale":
            top, left = top - self.part.top, left - self.part.left
            pixels = self.shown[top : top + target.height, left : left + target.width]
        else:
            area = (top, left, target.height, target.width)
            pixels = resample(self.shown, self.resized, area, target.resample)
        return pixels if self.tone_map is None else self.tone_map(pixels)


def display_size(frame: VideoFrame, aspect: Fraction | None, cropping: Cropping) -> tuple[int, int]:
    """Return the shown picture's (width, height), with square pixels and upright."""
    shape = _shown_shape(*cropping.size(frame), read_orientation(frame).transpose, aspect)
    width, height = map(round, shape)
    return max(1, width), max(1, height)


def is_shown_as_stored(frame: VideoFrame, aspect: Fraction | None, cropping: Cropping) -> bool:
    """Whether the picture is neither turned, mirrored, cropped nor stretched to be shown."""
    is_upright = read_orientation(frame).is_upright
    return is_upright and display_size(frame, aspect, cropping) == (frame.width, frame.height)


@lru_cache(maxsize=16)
def _resized_size(
    target: Preprocessing, width: int, height: int, transpose: bool, aspect: Fraction | None
) -> tuple[int, int]:
    """Return the (width, height) of the shown picture after resizing, before a crop is taken."""
    return resized_size(target, *_shown_shape(width, height, transpose, aspect))


def _shown_shape(
    width: int, height: int, transpose: bool, aspect: Fraction | None
) -> tuple[Fraction, Fraction]:
    """Return the exact (width, height) of the shown picture."""
    wide, high = Fraction(width), Fraction(height)
    if aspect is not None and Fraction(1, MAX_ASPECT) <= aspect <= MAX_ASPECT:
        wide *= aspect
    return (high, wide) if transpose else (wide, high)
