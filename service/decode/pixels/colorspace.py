"""Frames as a codec stores them -> RGB: matrix, range, depth, size, and black behind what is transparent."""

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image

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
# By default swscale has one chroma sample for two pixels of the result, which makes colours darker, by 2 of
# 255 or up to 4; unless it rounds exactly, it takes another shortcut where the size stays.
EXACT = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
# That shortcut, for 8-bit 4:2:0: a tenth of the time, colours darker by 1 or up to 3. PyAV's own conversion
# takes it, and other readers: checkpoints saw such pixels.
QUICK = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT


def matrix(frame: VideoFrame) -> Colorspace:
    """How its Y'CbCr was made of R'G'B'."""
    unspecified = Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
    return _MATRICES.get(frame.colorspace, unspecified)


class Converter:
    """Frames of one video -> RGB. The scalers are kept; they follow a frame's format."""

    def __init__(self, flags: Interpolation) -> None:
        self._flags = flags
        self._resizer = VideoReformatter()
        self._blender = VideoReformatter()

    def convert(self, frame: VideoFrame, size: tuple[int, int], matrix: Colorspace) -> np.ndarray:
        """A frame at (width, height) -> (height, width, 3) uint8

        Raises:
            FFmpegError: the stored pixel format has no conversion.
        """
        if any(component.is_alpha for component in frame.format.components):
            frame = self._over_black(frame, matrix)
        # Written as planes in two fifths of the time, since swscale has vector code for that: to the same
        # numbers, but for one in 500 that is off by one where the picture is enlarged.
        as_planes = self._flags == EXACT and not frame.format.is_rgb
        pixel_format = "gbrp" if as_planes else "rgb24"
        return _rgb(self._resizer, frame, size, pixel_format, matrix, self._flags).to_ndarray()

    def _over_black(self, frame: VideoFrame, matrix: Colorspace) -> VideoFrame:
        """Before it is resized, lest a colour that can't be seen run into its neighbours."""
        size = frame.width, frame.height
        straight = _rgb(self._blender, frame, size, "rgba", matrix, EXACT).to_ndarray()
        return VideoFrame.from_ndarray(np.asarray(Image.fromarray(straight).convert("RGBa")), "rgba")


def _rgb(
    scaler: VideoReformatter,
    frame: VideoFrame,
    size: tuple[int, int],
    pixel_format: str,
    matrix: Colorspace,
    flags: Interpolation,
) -> VideoFrame:
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
