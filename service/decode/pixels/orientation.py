"""A part of a picture, and the same part of the picture turned or mirrored."""

from typing import NamedTuple

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame


class Area(NamedTuple):
    """A part of a picture, pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def transposed(self) -> "Area":
        return Area(self.left, self.top, self.width, self.height)

    def mirrored(self, height: int, width: int, *, down: bool, across: bool) -> "Area":
        """In a picture of this size that is turned upside down, or left to right."""
        top = height - self.top - self.height if down else self.top
        left = width - self.left - self.width if across else self.left
        return Area(top, left, self.height, self.width)


class Orientation:
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

    def stored(self, area: Area, height: int, width: int) -> Area:
        """Where a part of the shown picture of this size is stored."""
        area = area.mirrored(height, width, down=self._flip_y, across=self._flip_x)
        return area.transposed if self.transpose else area

    def shown(self, area: Area, height: int, width: int) -> Area:
        """Where a stored part is in the shown picture of this size."""
        area = area.transposed if self.transpose else area
        return area.mirrored(height, width, down=self._flip_y, across=self._flip_x)


_UPRIGHT = Orientation(1, 0, 0, 1)
# By quarters of a turn counter-clockwise, as av_display_rotation_get gives them.
_QUARTERS = (_UPRIGHT, Orientation(0, -1, 1, 0), Orientation(-1, 0, 0, -1), Orientation(0, 1, -1, 0))


def orientation(frame: VideoFrame) -> Orientation:
    """How the frame is shown."""
    try:
        # Not by the frame's own property: it keeps what it gives, which holds the frame, so that decoded
        # pictures would stay until Python looks for cycles.
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # pyright: ignore[reportCallIssue]
    except ValueError:
        # PyAV lists no side data where a kind that it does not know is among them; the angle it still has.
        return _QUARTERS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return _UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, count=5).tolist()
    return Orientation(a, b, c, d)
