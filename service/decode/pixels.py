"""One decoded frame -> RGB pixels as a viewer sees them, at the model's size.

H W C pixels of the result. "Stored" is how the codec keeps a picture; "shown" is after square pixels and
the display matrix (rotation by quarters, mirrors).
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from service.decode.protocol import Refusal
from service.decode.resample import resample
from service.values import Crop, PixelFormat

# AVColorSpace (ITU-T H.273 matrix coefficients) -> swscale's matrix. What is not here counts as unspecified.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_HD_LINES = 720  # pictures of so many lines are BT.709 when they don't say, smaller ones BT.601
_MAX_ASPECT = 16  # pixels wider than this, or a longer side beyond this many targets, are squeezed to it


class Painter:
    """Frames of one video -> ``pixel_format``. One scaler is kept; it follows a frame's format."""

    def __init__(self, pixel_format: PixelFormat, aspect: Fraction | None) -> None:
        self._format = pixel_format
        self._aspect = aspect
        self._scaler = VideoReformatter()

    def paint(self, frame: VideoFrame) -> "Picture":
        """
        Raises:
            Refusal: UNSUPPORTED_VIDEO, the stored pixel format has no conversion.
        """
        orientation = _orientation(frame)
        width, height = self._resized(frame)
        if self._format.resample != "swscale":
            stored = frame.width, frame.height
        else:
            stored = (height, width) if orientation.transpose else (width, height)
        return Picture(orientation.apply(self._convert(frame, *stored)), (height, width), self._format)

    def _resized(self, frame: VideoFrame) -> tuple[int, int]:
        """The shown picture's size before a crop is cut out: (width, height)."""
        rows, columns = self._format.resized
        if self._format.resize == "stretch":
            return columns, rows
        width, height = display_size(frame, self._aspect)
        scale = max(Fraction(columns, width), Fraction(rows, height))
        return (
            min(max(int(width * scale), columns), columns * _MAX_ASPECT),
            min(max(int(height * scale), rows), rows * _MAX_ASPECT),
        )

    def _convert(self, frame: VideoFrame, width: int, height: int) -> np.ndarray:
        """The stored picture in RGB, over black where it is transparent: -> (height, width, 3)."""
        has_alpha = any(component.is_alpha for component in frame.format.components)
        try:
            scaled = self._scaler.reformat(
                frame,
                width=width,
                height=height,
                format="rgba" if has_alpha else "rgb24",
                src_colorspace=None if frame.format.is_rgb else _matrix(frame),
                interpolation=Interpolation.BILINEAR,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        except MemoryError:
            raise
        except FFmpegError as error:
            raise Refusal(
                "UNSUPPORTED_VIDEO", f"pixels stored as {frame.format.name} are not taken"
            ) from error
        pixels = scaled.to_ndarray()
        if not has_alpha:
            return pixels
        colours, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:]
        return ((colours * alpha + 127) // 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame as it is shown, of which crops are cut. One made by swscale is resized already."""

    shown: np.ndarray  # (height, width, 3) uint8
    resized: tuple[int, int]  # (height, width)
    format: PixelFormat

    def cut(self, crop: Crop) -> np.ndarray:
        """-> (H, W, 3) uint8"""
        target = self.format
        top, left = target.corner(crop, *self.resized)
        if target.resample == "swscale":
            return self.shown[top : top + target.height, left : left + target.width]
        return resample(self.shown, self.resized, (top, left, target.height, target.width), target.resample)


def display_size(frame: VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """The shown picture's (width, height): square pixels, upright."""
    width, height = frame.width, frame.height
    if aspect is not None and Fraction(1, _MAX_ASPECT) <= aspect <= _MAX_ASPECT:
        width = max(1, round(width * aspect))
    return (height, width) if _orientation(frame).transpose else (width, height)


class _Orientation:
    """The nearest of the eight ways to lay a picture down that a display matrix (ISO 14496-12) stands for."""

    def __init__(self, a: int, b: int, c: int, d: int) -> None:
        # A stored pixel (p, q) is shown at (a p + c q, b p + d q).
        self.transpose = abs(b) + abs(c) > abs(a) + abs(d)
        self._flip_x = (c if self.transpose else a) < 0
        self._flip_y = (b if self.transpose else d) < 0

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """(height, width, 3) as stored -> as shown."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self._flip_y else 1, :: -1 if self._flip_x else 1]


_UPRIGHT = _Orientation(1, 0, 0, 1)
# By quarters of a turn counter-clockwise, as av_display_rotation_get gives them.
_QUARTERS = (_UPRIGHT, _Orientation(0, -1, 1, 0), _Orientation(-1, 0, 0, -1), _Orientation(0, 1, -1, 0))


def _orientation(frame: VideoFrame) -> _Orientation:
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV lists no side data where a kind that it does not know is among them; the angle it still has.
        return _QUARTERS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return _UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, count=5).tolist()
    return _Orientation(a, b, c, d)


def _matrix(frame: VideoFrame) -> Colorspace:
    unspecified = Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
    return _MATRICES.get(frame.colorspace, unspecified)
