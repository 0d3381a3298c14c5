"""Interlaced frames: the field that is shown first stands for the frame.

A frame holds two pictures in turns of lines, taken at different times: resized together they show combs where
something moves. One field has lines enough for a model's size. The neighbours that FFmpeg's yadif and bwdif
look at are not at hand here, and at that size change the picture by 1 or 2 of 255 on average.
"""

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.filter_graph import KeptGraph


@dataclass(frozen=True, slots=True)
class Field:
    """Half the lines of a frame, which are not copied."""

    frame: VideoFrame
    is_top: bool
    lines: int  # of the whole frame

    def settle(self, pixels: np.ndarray) -> np.ndarray:
        """The resized field, moved to where it lies in the frame: (height, width, 3) uint8 -> the same.

        The lines of a field are off the middles of what they stand for by half a line of the frame.
        """
        height = len(pixels)
        whole, part = divmod(round(256 * height / (2 * self.lines)), 256)
        rows, towards = np.arange(height), 1 if self.is_top else -1
        near, far = (np.clip(rows + towards * lines, 0, height - 1) for lines in (whole, whole + 1))
        wide = pixels.astype(np.uint16)
        return ((wide[near] * (256 - part) + wide[far] * part + 128) >> 8).astype(np.uint8)


class FieldSeparator:
    """Takes frames of one video apart."""

    def __init__(self) -> None:
        self._graph = KeptGraph()

    def first(self, frame: VideoFrame) -> Field:
        """The field that is shown first.

        Raises:
            FFmpegError: such a frame has no fields, as one with a single line.
        """
        even = f"iw:{frame.height // 2 * 2}:0:0"  # a line too many belongs to no field
        # The other field of the frame before comes first.
        field = self._graph.filtered(frame, [("crop", even), ("separatefields", "")])[-1]
        return Field(field, field.planes[0].buffer_ptr == frame.planes[0].buffer_ptr, frame.height)
