"""FFmpeg filter graphs for the frames of one video."""

from collections.abc import Sequence
from fractions import Fraction

from av.error import BlockingIOError, EOFError
from av.filter import Graph
from av.video.frame import VideoFrame

Filters = Sequence[tuple[str, str]]
"""The name and arguments of each filter, in order."""


class CachedFilterGraph:
    """A filter graph that is reused while frame size, pixel format and filters stay the same.

    A discarded graph, and the frames that it holds, would stay in memory until Python looks for reference
    cycles.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._built_for: tuple[object, ...] | None = None

    def apply(self, frame: VideoFrame, filters: Filters) -> list[VideoFrame]:
        """Return the frames that come out after ``frame`` goes in, delayed ones of the same filters included.

        Raises:
            FFmpegError: the filters do not accept such a frame.
        """
        key = frame.width, frame.height, frame.format.name, *filters
        if self._graph is not None and key != self._built_for:
            last, self._graph = self._graph, None
            last.vpush(None)
            _pull_all(last)
        if self._graph is None:
            self._graph, self._built_for = _build(frame, filters), key
        self._graph.vpush(frame)
        return _pull_all(self._graph)


def _build(frame: VideoFrame, filters: Filters) -> Graph:
    """Build a graph that applies ``filters`` to frames like ``frame``."""
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    steps = [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
    return graph


def _pull_all(graph: Graph) -> list[VideoFrame]:
    """Return all frames that the graph has ready."""
    frames: list[VideoFrame] = []
    while True:
        try:
            frames.append(graph.vpull())
        except (BlockingIOError, EOFError):
            return frames
