"""Interlaced frames: the field that is shown first stands for the frame.

A frame holds two pictures in turns of lines, taken at different times: resized together they show combs where
something moves. One field has lines enough for a model's size. The neighbours that FFmpeg's yadif and bwdif
look at are not at hand here, and at that size change the picture by 1 or 2 of 255 on average.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.error import BlockingIOError, EOFError
from av.filter import Graph
from av.video.frame import VideoFrame


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
    """Takes frames of one video apart. The filter graph is kept: Python finds discarded ones, and with them
    the frames that they hold, only when it looks for cycles."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def first(self, frame: VideoFrame) -> Field:
        """The field that is shown first.

        Raises:
            FFmpegError: such a frame has no fields, as one with a single line.
        """
        graph = self._graph_for(frame)
        graph.vpush(frame)
        # The other field of the frame before comes first.
        field = _pulled(graph)[-1]
        return Field(field, field.planes[0].buffer_ptr == frame.planes[0].buffer_ptr, frame.height)

    def _graph_for(self, frame: VideoFrame) -> Graph:
        shape = frame.width, frame.height, frame.format.name
        if self._graph is None or shape != self._shape:
            if self._graph is not None:
                self._graph.vpush(None)
                _pulled(self._graph)
            self._graph, self._shape = _separating(frame), shape
        return self._graph


def _separating(frame: VideoFrame) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    even = graph.add("crop", f"iw:{frame.height // 2 * 2}:0:0")  # a line too many belongs to no field
    graph.link_nodes(source, even, graph.add("separatefields"), graph.add("buffersink")).configure()
    return graph


def _pulled(graph: Graph) -> list[VideoFrame]:
    """All that the graph has ready."""
    frames: list[VideoFrame] = []
    while True:
        try:
            frames.append(graph.vpull())
        except (BlockingIOError, EOFError):
            return frames
