"""Rotation and mirroring of pictures and of areas in them."""

from typing import NamedTuple

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame


class Area(NamedTuple):
    """A rectangular part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def transposed(self) -> "Area":
        """The area with rows and columns exchanged."""
        return Area(self.left, self.top, self.width, self.height)

    def mirrored(self, height: int, width: int, *, down: bool, across: bool) -> "Area":
        """Return the area after flipping the (height, width) picture ``down`` or ``across``."""
        top = height - self.top - self.height if down else self.top
        left = width - self.left - self.width if across else self.left
        return Area(top, left, self.height, self.width)


class Orientation:
    """The one of eight orientations nearest to a display matrix (ISO 14496-12)."""

    def __init__(self, a: int, b: int, c: int, d: int) -> None:
        # A stored pixel (p, q) is shown at (a p + c q, b p + d q).
        self.transpose = abs(b) + abs(c) > abs(a) + abs(d)
        self._flip_x = (c if self.transpose else a) < 0
        self._flip_y = (b if self.transpose else d) < 0

    @property
    def is_upright(self) -> bool:
        """Whether pictures are stored as they are shown."""
        return not (self.transpose or self._flip_x or self._flip_y)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Turn a picture (height, width, 3) from its stored to its shown orientation."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self._flip_y else 1, :: -1 if self._flip_x else 1]

    def to_stored(self, area: Area, height: int, width: int) -> Area:
        """Return where ``area`` of the shown picture of (height, width) is stored."""
        area = area.mirrored(height, width, down=self._flip_y, across=self._flip_x)
        return area.transposed if self.transpose else area

    def to_shown(self, area: Area, height: int, width: int) -> Area:
        """Return where the stored ``area`` lies in the shown picture of (height, width)."""
        area = area.transposed if self.transpose else area
        return area.mirrored(height, width, down=self._flip_y, across=self._flip_x)


_UPRIGHT = Orientation(1, 0, 0, 1)
# By number of quarter turns counter-clockwise, as av_display_rotation_get returns them.
_QUARTERS = (_UPRIGHT, Orientation(0, -1, 1, 0), Orientation(-1, 0, 0, -1), Orientation(0, 1, -1, 0))


def read_orientation(frame: VideoFrame) -> Orientation:
    """Return the orientation that the frame's display matrix states."""
    try:
        # The frame's own property would cache a value that refers to the frame, so that decoded pictures
        # would stay in memory until Python looks for reference cycles.
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # pyright: ignore[reportCallIssue]
    except ValueError:
        # PyAV lists no side data if one has an unknown type; it still has the angle.
        return _QUARTERS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return _UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, count=5).tolist()
    return Orientation(a, b, c, d)
