"""A part of a picture, and the same part of the picture turned or mirrored."""

from typing import NamedTuple


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
