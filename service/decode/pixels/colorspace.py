"""Conversion of stored frames to RGB: matrix, range, bit depth, size, and transparency over black."""

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image

# AVColorSpace (ITU-T H.273 matrix coefficients) -> swscale's matrix. Other values count as unspecified.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_HD_LINES = 720  # unspecified means BT.709 from this height on, and BT.601 below
# By default, swscale takes one chroma sample for two pixels of the result. That makes colours darker by 2 of
# 255, at most 4. Without exact rounding, it takes another shortcut if the size stays the same.
ACCURATE = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
# With that shortcut, for 8-bit 4:2:0: a tenth of the time, and colours darker by 1 of 255, at most 3. PyAV's
# own conversion and other readers take it, so checkpoints were trained on such pixels.
FAST = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT


def colorspace_of(frame: VideoFrame) -> Colorspace:
    """Return the matrix that made the frame's Y'CbCr from R'G'B'."""
    unspecified = Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
    return _MATRICES.get(frame.colorspace, unspecified)


class ColorspaceConverter:
    """An RGB converter for the frames of one video; its scalers are reused while frames stay alike."""

    def __init__(self, flags: Interpolation) -> None:
        self._flags = flags
        self._resizer = VideoReformatter()
        self._blender = VideoReformatter()

    def convert(self, frame: VideoFrame, size: tuple[int, int], matrix: Colorspace) -> np.ndarray:
        """Convert ``frame`` to RGB at ``size`` (width, height) -> (height, width, 3) uint8.

        Raises:
            FFmpegError: the stored pixel format has no conversion.
        """
        if any(component.is_alpha for component in frame.format.components):
            frame = self._blend_over_black(frame, matrix)
        # Planes take two fifths of the time, because swscale has vector code for them. The result is the
        # same, except that one value in 500 is off by one in enlarged pictures.
        as_planes = self._flags == ACCURATE and not frame.format.is_rgb
        pixel_format = "gbrp" if as_planes else "rgb24"
        return _scale(self._resizer, frame, size, pixel_format, matrix, self._flags).to_ndarray()

    def _blend_over_black(self, frame: VideoFrame, matrix: Colorspace) -> VideoFrame:
        """Blend ``frame`` over black, before resizing, so that invisible colours do not bleed."""
        size = frame.width, frame.height
        straight = _scale(self._blender, frame, size, "rgba", matrix, ACCURATE).to_ndarray()
        return VideoFrame.from_ndarray(np.asarray(Image.fromarray(straight).convert("RGBa")), "rgba")


def _scale(
    scaler: VideoReformatter,
    frame: VideoFrame,
    size: tuple[int, int],
    pixel_format: str,
    matrix: Colorspace,
    flags: Interpolation,
) -> VideoFrame:
    """Convert and resize ``frame`` with swscale."""
    return scaler.reformat(
        frame,
        width=size[0],
        height=size[1],
        format=pixel_format,
        src_colorspace=None if frame.format.is_rgb else matrix,
        interpolation=flags,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    )
