"""What is cut away of a resized picture need not be resized: the part of a frame that a crop is made of.

"Stored" pixels are those of the frame, "resized" ones those of the whole picture at its new size.
"""

from functools import lru_cache
from typing import NamedTuple

from av.error import FFmpegError
from av.video.frame import VideoFrame

from service.decode.graph import KeptGraph

_SUPPORT = 1  # resized pixels around a crop that its edges are made of too, by a bilinear filter
_LOOKED_AT = 16  # resized pixels further out, for an edge that lies between two stored pixels
_FINE = 0.1  # of a stored pixel that an edge may be off
_PAIR = 2  # pixels that have one sample of colour, or that swscale takes one of, in RGB too
_MANY = 64  # pixels, to ask how many samples of colour they have
_WORTH_IT = 0.9  # of the frame; cutting less away saves nothing


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


class Span(NamedTuple):
    """Along a side: stored pixels from ``start`` to ``end``, which make the resized ``first`` to ``last``."""

    start: int
    end: int
    first: int
    last: int


class Trimmer:
    """Trims the frames of one video, without a copy."""

    def __init__(self) -> None:
        self._graph = KeptGraph()

    def trimmed(self, frame: VideoFrame, height: int, width: int, wanted: Area) -> tuple[VideoFrame, Area]:
        """What ``wanted`` of the picture resized to this size is made of, and where that lies in it.

        All of the frame, if it is enlarged, where edges that are off by a tenth of a pixel would show, if its
        colours do not come in pairs throughout, if there is little to be cut away, or it cannot be cut.
        """
        whole = frame, Area(0, 0, height, width)
        if frame.height < height or frame.width < width or frame.height % _PAIR or frame.width % _PAIR:
            return whole
        if min(frame.format.chroma_width(_MANY), frame.format.chroma_height(_MANY)) < _MANY // _PAIR:
            return whole
        rows = span(frame.height, height, (wanted.top, wanted.height))
        columns = span(frame.width, width, (wanted.left, wanted.width))
        kept_rows, kept_columns = rows.end - rows.start, columns.end - columns.start
        if kept_rows * kept_columns > _WORTH_IT * frame.height * frame.width:
            return whole
        area = f"{kept_columns}:{kept_rows}:{columns.start}:{rows.start}:exact=1"
        try:
            (part,) = self._graph.filtered(frame, [("crop", area)])
        except (FFmpegError, ValueError):
            return whole
        made = Area(rows.first, columns.first, rows.last - rows.first, columns.last - columns.first)
        return part, made


@lru_cache(maxsize=16)
def span(stored: int, resized: int, wanted: tuple[int, int]) -> Span:
    """Of ``wanted`` (start, length) along a side, and what a filter takes around it."""
    scale = stored / resized
    first = wanted[0] - _SUPPORT
    first, start = _edge(range(first, first - _LOOKED_AT, -1), scale)
    if first <= 0 or start <= 0:
        first, start = 0, 0
    last = sum(wanted) + _SUPPORT
    last, end = _edge(range(last, last + _LOOKED_AT), scale)
    if last >= resized or end >= stored:
        last, end = resized, stored
    return Span(start, end, first, last)


def _edge(places: range, scale: float) -> tuple[int, int]:
    """Of these resized places, the first that lies between two pairs of stored pixels, or the nearest to one.

    The place, and the stored pixel that begins there.
    """

    def edge(place: int) -> int:
        return round(place * scale / _PAIR) * _PAIR

    def off(place: int) -> float:
        return abs(place * scale - edge(place))

    found = next((place for place in places if off(place) <= _FINE), None)
    best = min(places, key=off) if found is None else found
    return best, edge(best)
