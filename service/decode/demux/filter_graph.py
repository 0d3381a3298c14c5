"""FFmpeg's filters on the frames of one video."""

from collections.abc import Sequence
from fractions import Fraction

from av.error import BlockingIOError, EOFError
from av.filter import Graph
from av.video.frame import VideoFrame

Filters = Sequence[tuple[str, str]]
"""Each one's name and arguments, one behind the other."""


class KeptGraph:
    """A filter graph for frames that are alike. It is kept: Python finds discarded ones, and with them the
    frames that they hold, only when it looks for cycles."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._made_for: tuple[object, ...] | None = None

    def filtered(self, frame: VideoFrame, filters: Filters) -> list[VideoFrame]:
        """What comes of a frame, and of those before it that were held back.

        Raises:
            FFmpegError: the filters do not take such a frame.
        """
        wanted = frame.width, frame.height, frame.format.name, *filters
        if self._graph is not None and wanted != self._made_for:
            last, self._graph = self._graph, None
            last.vpush(None)
            _pulled(last)
        if self._graph is None:
            self._graph, self._made_for = _made(frame, filters), wanted
        self._graph.vpush(frame)
        return _pulled(self._graph)


def _made(frame: VideoFrame, filters: Filters) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    steps = [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
    return graph


def _pulled(graph: Graph) -> list[VideoFrame]:
    """All that the graph has ready."""
    frames: list[VideoFrame] = []
    while True:
        try:
            frames.append(graph.vpull())
        except (BlockingIOError, EOFError):
            return frames
