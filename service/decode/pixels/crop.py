"""Cropping of frames before resizing: only the part that a crop is made of is resized.

"Stored" pixels are those of the frame, "resized" ones those of the whole picture at its new size.
"""

from functools import lru_cache
from typing import NamedTuple

from av.error import FFmpegError
from av.video.frame import VideoFrame

from tubelet.service.decode.demux.filter_graph import CachedFilterGraph
from tubelet.service.decode.pixels.orientation import Area

_FILTER_SUPPORT = 1  # resized pixels beyond a crop's edge that a bilinear filter needs
_MAX_EDGE_ERROR = 0.03  # of a resized pixel; larger shifts can be seen
_CHROMA_PAIR = 2  # pixels that share a chroma sample, or of which swscale takes one, in RGB too
_PROBE_PIXELS = 64  # pixels; a size at which chroma sampling is measured
_MAX_KEPT_SHARE = 0.9  # of the frame; a larger part is not worth cropping


class SourceSpan(NamedTuple):
    """A range along one side: stored pixels [start, end), which become the resized pixels [first, last)."""

    start: int
    end: int
    first: int
    last: int


class SourceCropper:
    """A filter that crops the frames of one video without copying them."""

    def __init__(self) -> None:
        self._graph = CachedFilterGraph()

    def crop(self, frame: VideoFrame, height: int, width: int, wanted: Area) -> tuple[VideoFrame, Area]:
        """Return the part of ``frame`` that ``wanted`` is made of, and its area in the resized picture.

        ``wanted`` is an area of the picture resized to (height, width). The whole frame is returned if it is
        enlarged, if its chroma is not sampled in pairs throughout, if little would be cut, or if such frames
        cannot be cropped.
        """
        whole = frame, Area(0, 0, height, width)
        if frame.height < height or frame.width < width or not _is_sampled_in_pairs(frame):
            return whole
        rows = source_span(frame.height, height, (wanted.top, wanted.height))
        columns = source_span(frame.width, width, (wanted.left, wanted.width))
        kept_rows, kept_columns = rows.end - rows.start, columns.end - columns.start
        if kept_rows * kept_columns > _MAX_KEPT_SHARE * frame.height * frame.width:
            return whole
        area = f"{kept_columns}:{kept_rows}:{columns.start}:{rows.start}:exact=1"
        try:
            (part,) = self._graph.apply(frame, [("crop", area)])
        except (FFmpegError, ValueError):
            return whole
        # FFmpeg's crop does not support the format and converted it
        if part.format.name != frame.format.name:
            return whole
        made = Area(rows.first, columns.first, rows.last - rows.first, columns.last - columns.first)
        return part, made


def _is_sampled_in_pairs(frame: VideoFrame) -> bool:
    """Whether every chroma sample of ``frame`` belongs to one pixel, or to a whole pair, along each side."""
    sampled = frame.format.chroma_width(_PROBE_PIXELS), frame.format.chroma_height(_PROBE_PIXELS)
    is_even = frame.height % _CHROMA_PAIR == frame.width % _CHROMA_PAIR == 0
    return is_even and min(sampled) >= _PROBE_PIXELS // _CHROMA_PAIR


@lru_cache(maxsize=16)
def source_span(stored: int, resized: int, wanted: tuple[int, int]) -> SourceSpan:
    """Return the stored pixels that ``wanted`` (start, length) along a side needs, with a filter's support.

    Both ends lie where a resized pixel begins together with a pair of stored ones, or at the frame's own
    edges.
    """
    before, after = wanted[0] - _FILTER_SUPPORT, sum(wanted) + _FILTER_SUPPORT
    first = next((position for position in range(before, 0, -1) if _is_edge(position, stored, resized)), 0)
    last = next(
        (position for position in range(after, resized) if _is_edge(position, stored, resized)), resized
    )
    return SourceSpan(
        _nearest_pair_start(first, stored, resized), _nearest_pair_start(last, stored, resized), first, last
    )


def _is_edge(position: int, stored: int, resized: int) -> bool:
    """Whether the resized pixel at ``position`` begins where a pair of stored pixels does."""
    return (
        abs(position - _nearest_pair_start(position, stored, resized) * resized / stored) <= _MAX_EDGE_ERROR
    )


def _nearest_pair_start(position: int, stored: int, resized: int) -> int:
    """Return the stored pixel nearest to where a resized one begins, among those that begin a pair."""
    return round(position * stored / resized / _CHROMA_PAIR) * _CHROMA_PAIR
