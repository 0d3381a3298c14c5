"""Deinterlacing: the field that is shown first stands for the frame.

An interlaced frame holds two pictures in alternate lines, taken at different times; resized together, they
show combs where something moves. One field has lines enough for a model's size. FFmpeg's yadif and bwdif also
use the neighbouring frames, which are not available here; at that size, they change the picture by 1 or 2 of
255 on average.
"""

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.filter_graph import CachedFilterGraph


@dataclass(frozen=True, slots=True)
class Field:
    """Every second line of a frame, without a copy."""

    frame: VideoFrame
    is_top: bool
    lines: int  # lines of the whole frame

    def align(self, pixels: np.ndarray) -> np.ndarray:
        """Move the resized field to its place in the frame: (height, width, 3) uint8 -> the same.

        The lines of a field lie half a line of the frame off the centres of the lines they stand for.
        """
        height = len(pixels)
        whole, part = divmod(round(256 * height / (2 * self.lines)), 256)
        rows, towards = np.arange(height), 1 if self.is_top else -1
        near, far = (np.clip(rows + towards * lines, 0, height - 1) for lines in (whole, whole + 1))
        wide = pixels.astype(np.uint16)
        return ((wide[near] * (256 - part) + wide[far] * part + 128) >> 8).astype(np.uint8)


class Deinterlacer:
    """A splitter of the interlaced frames of one video."""

    def __init__(self) -> None:
        self._graph = CachedFilterGraph()

    def first_field(self, frame: VideoFrame) -> Field:
        """Return the field of ``frame`` that is shown first.

        Raises:
            FFmpegError: such a frame has no fields, for example because it has a single line.
        """
        even = f"iw:{frame.height // 2 * 2}:0:0"  # an odd last line belongs to no field
        # The filter first returns the second field of the previous frame.
        field = self._graph.apply(frame, [("crop", even), ("separatefields", "")])[-1]
        return Field(field, field.planes[0].buffer_ptr == frame.planes[0].buffer_ptr, frame.height)
