"""What is cut away of a resized picture need not be resized: the part of a frame that a crop is made of.

"Stored" pixels are those of the frame, "resized" ones those of the whole picture at its new size.
"""

from functools import lru_cache
from typing import NamedTuple

from av.error import FFmpegError
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.filter_graph import KeptGraph
from tubelet.service.decode.pixels.orientation import Area

_SUPPORT = 1  # resized pixels around a crop that its edges are made of too, by a bilinear filter
_FINE = 0.03  # of a resized pixel that an edge of the part may be off; more can be seen
_PAIR = 2  # pixels that have one sample of colour, or that swscale takes one of, in RGB too
_MANY = 64  # pixels, to ask how many samples of colour they have
_WORTH_IT = 0.9  # of the frame; cutting less away saves nothing


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

        All of the frame, if it is enlarged, if its colours do not come in pairs throughout, if little can be
        cut away, or if such frames cannot be cut.
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
        if part.format.name != frame.format.name:  # FFmpeg's crop takes no such format, and it was converted
            return whole
        made = Area(rows.first, columns.first, rows.last - rows.first, columns.last - columns.first)
        return part, made


@lru_cache(maxsize=16)
def span(stored: int, resized: int, wanted: tuple[int, int]) -> Span:
    """Of ``wanted`` (start, length) along a side, and what a filter takes around it.

    Edges lie where a resized pixel begins with a pair of stored ones, and so do the frame's own.
    """
    before, after = wanted[0] - _SUPPORT, sum(wanted) + _SUPPORT
    first = next((place for place in range(before, 0, -1) if _is_edge(place, stored, resized)), 0)
    last = next((place for place in range(after, resized) if _is_edge(place, stored, resized)), resized)
    return Span(_pairs(first, stored, resized), _pairs(last, stored, resized), first, last)


def _is_edge(place: int, stored: int, resized: int) -> bool:
    return abs(place - _pairs(place, stored, resized) * resized / stored) <= _FINE


def _pairs(place: int, stored: int, resized: int) -> int:
    """The stored pixel nearest to where a resized one begins, of those that begin a pair."""
    return round(place * stored / resized / _PAIR) * _PAIR
