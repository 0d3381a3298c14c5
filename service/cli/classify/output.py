"""Standard output of ``tubelet classify``: text, or JSON for answers and events."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console

from tubelet.service.cli.classify.answer_table import AnswerTable
from tubelet.service.cli.output import answer_json, event_json, interrupted_json
from tubelet.service.cli.runs.live_region import LiveRegion
from tubelet.service.cli.runs.progress import RunProgress, VideoInProgress
from tubelet.service.cli.runs.runner import Answer, Failure, Started
from tubelet.service.report.merged_segments import Line, SegmentMerger, merge_segments
from tubelet.service.report.text import clock
from tubelet.service.types.embeddings import Embeddings
from tubelet.service.types.result import Event, Segment
from tubelet.service.types.video import VideoMetadata

_LABEL_WIDTH = 12  # of a table whose lines are written before all labels are known


class Output(Protocol):
    """A form of output: gets each event and answer after ``RunProgress`` has counted it."""

    def event(self, number: int, event: Started | Event) -> None:
        """Print an event of the video with this number, or wait for more."""
        ...

    def answer(self, number: int, answer: Answer, before: VideoInProgress) -> None:
        """Print the answer of a video; ``before`` is what was known until then."""
        ...

    def interrupted(self, videos: dict[int, VideoInProgress]) -> None:
        """Print what is known of the videos in progress, by their numbers."""
        ...


class NoOutput:
    """Output that prints nothing: the answers go to a file."""

    def event(self, number: int, event: Started | Event) -> None: ...

    def answer(self, number: int, answer: Answer, before: VideoInProgress) -> None: ...

    def interrupted(self, videos: dict[int, VideoInProgress]) -> None: ...


class JsonOutput:
    """JSON output: one object for each video; with ``stream``, one for each event before it."""

    def __init__(self, run: RunProgress, region: LiveRegion, *, stream: bool) -> None:
        self._run = run
        self._region = region
        self._stream = stream

    def event(self, number: int, event: Started | Event) -> None:
        if self._stream and not isinstance(event, Started | Embeddings):
            self._print(event_json(self._run.videos[number], event))

    def answer(self, number: int, answer: Answer, before: VideoInProgress) -> None:
        self._print(answer_json(self._run.videos[number], answer))

    def interrupted(self, videos: dict[int, VideoInProgress]) -> None:
        for number, video in videos.items():
            self._print(interrupted_json(self._run.videos[number], video.metadata, video.segments))

    def _print(self, content: dict[str, Any]) -> None:
        """Print an object on a line of its own."""
        with self._region.hidden(), _naming_standard_output():
            print(json.dumps(content), flush=True)


class StandardOutput(Console):
    """A console on standard output that raises BrokenPipeError where rich would end the process."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False)

    def print(self, *objects: Any, **style: Any) -> None:
        with _naming_standard_output():
            super().print(*objects, **style)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@contextmanager
def _naming_standard_output() -> Iterator[None]:
    """Say in the message of an OSError that standard output could not be written."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"cannot write standard output: {error.strerror}") from error


class TextOutput:
    """Text output: one block for each video that ends; a single video is printed line by line."""

    def __init__(self, run: RunProgress, region: LiveRegion, console: Console, *, merged: bool) -> None:
        self._run = run
        self._region = region
        self._console = console
        self._merged = merged
        self._open: _OpenBlock | None = None  # of the single video

    def event(self, number: int, event: Started | Event) -> None:
        single_video = self._run.single_video
        if single_video is None:
            return
        video = self._run.in_progress[single_video]
        if isinstance(event, VideoMetadata):
            self._open = None
        if self._open is None and video.metadata is not None:
            with self._region.hidden():
                table = AnswerTable(self._console, _LABEL_WIDTH)
                self._open = _OpenBlock(table, self._run.videos[single_video], video, merged=self._merged)
        elif self._open is not None and isinstance(event, Segment):
            with self._region.hidden():
                self._open.add(event)

    def answer(self, number: int, answer: Answer, before: VideoInProgress) -> None:
        block, self._open = self._open, None
        if isinstance(answer, Failure):
            return
        with self._region.hidden():
            if block is not None:
                block.end(answer.segments[len(before.segments) :])
                table = block.table
            else:
                table = AnswerTable(self._console)
                table.header(self._run.videos[number], answer.metadata)
                table.rows(self._lines(answer.segments))
            table.end(answer)

    def interrupted(self, videos: dict[int, VideoInProgress]) -> None:
        for number, video in videos.items():
            block, self._open = self._open, None
            if block is not None:
                block.end(())
                table = block.table
            else:
                table = AnswerTable(self._console)
                table.header(self._run.videos[number], video.metadata)
                table.rows(self._lines(video.segments))
            table.note(f"interrupted after {clock(video.done_ns)}")

    def _lines(self, segments: Iterable[Segment]) -> list[Line]:
        """Return the lines for the segments, merged if that is wanted."""
        return list(merge_segments(segments) if self._merged else segments)


class _OpenBlock:
    """The block of a single video, printed line by line."""

    def __init__(self, table: AnswerTable, name: str, video: VideoInProgress, *, merged: bool) -> None:
        self.table = table
        self._merger = SegmentMerger() if merged else None
        table.header(name, video.metadata)
        for segment in video.segments:
            self.add(segment)

    def add(self, segment: Segment) -> None:
        """Print the line that the segment completes, if it completes one."""
        line = segment if self._merger is None else self._merger.add(segment)
        if line is not None:
            self.table.rows([line])

    def end(self, rest: Iterable[Segment]) -> None:
        """Print the last lines; ``rest`` are the segments that came only with the answer."""
        for segment in rest:
            self.add(segment)
        line = None if self._merger is None else self._merger.finish()
        if line is not None:
            self.table.rows([line])


class OrderedOutput:
    """Output in the order of the arguments: holds answers back until all before them are there.

    ``output`` may be replaced: an answer goes to the one that it came under.
    """

    def __init__(self, output: Output) -> None:
        self.output = output
        self._held: dict[int, tuple[Output, Answer, VideoInProgress]] = {}
        self._next = 0

    def event(self, number: int, event: Started | Event) -> None:
        self.output.event(number, event)

    def answer(self, number: int, answer: Answer, before: VideoInProgress) -> None:
        self._held[number] = self.output, answer, before
        while self._next in self._held:
            self._print(self._next)
            self._next += 1

    def interrupted(self, videos: dict[int, VideoInProgress]) -> None:
        for number in sorted({*self._held, *videos}):
            if number in videos:
                self.output.interrupted({number: videos[number]})
            else:
                self._print(number)

    def _print(self, number: int) -> None:
        """Print an answer that was held back."""
        output, answer, before = self._held.pop(number)
        output.answer(number, answer, before)
