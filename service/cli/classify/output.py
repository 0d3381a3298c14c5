"""What ``classify`` writes to standard output: text for people, or JSON as answers or events come."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console

from tubelet.service.cli.classify.answer_table import AnswerTable
from tubelet.service.cli.classify.merged_segments import Line, SegmentMerger, merge_segments
from tubelet.service.cli.output import answer_json, clock, event_json, interrupted_json
from tubelet.service.cli.runs.live_region import LiveRegion
from tubelet.service.cli.runs.progress import RunProgress, VideoInProgress
from tubelet.service.cli.runs.runner import Answer, Begun, Event, Failure
from tubelet.service.types.result import Segment
from tubelet.service.types.video import VideoMetadata

_LABEL_WIDTH = 12  # of a table whose lines are written before all labels are known


class Output(Protocol):
    """Gets each event and answer after ``RunProgress`` has taken it into account."""

    def event(self, number: int, event: Begun | Event) -> None: ...

    def answer(self, number: int, answer: Answer, before: VideoInProgress) -> None:
        """Take the answer of a video, and what was known ``before`` it."""
        ...

    def interrupted(self, videos: dict[int, VideoInProgress]) -> None:
        """Write what is known of the videos in progress, by their indices."""
        ...


class NoOutput:
    """Nothing: the answers go elsewhere."""

    def event(self, number: int, event: Begun | Event) -> None: ...

    def answer(self, number: int, answer: Answer, before: VideoInProgress) -> None: ...

    def interrupted(self, videos: dict[int, VideoInProgress]) -> None: ...


class JsonOutput:
    """An object a video; with ``stream``, an object an event before it."""

    def __init__(self, run: RunProgress, region: LiveRegion, *, stream: bool) -> None:
        self._run = run
        self._region = region
        self._stream = stream

    def event(self, number: int, event: Begun | Event) -> None:
        if self._stream and not isinstance(event, Begun):
            self._print(event_json(self._run.videos[number], event))

    def answer(self, number: int, answer: Answer, before: VideoInProgress) -> None:
        self._print(answer_json(self._run.videos[number], answer))

    def interrupted(self, videos: dict[int, VideoInProgress]) -> None:
        for number, video in videos.items():
            self._print(interrupted_json(self._run.videos[number], video.metadata, video.segments))

    def _print(self, content: dict[str, Any]) -> None:
        with self._region.lifted(), _errors_named():
            print(json.dumps(content), flush=True)


class StandardOutput(Console):
    """Standard output for text; a reader that went away is an error, where rich would end the process."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False)

    def print(self, *objects: Any, **style: Any) -> None:
        with _errors_named():
            super().print(*objects, **style)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@contextmanager
def _errors_named() -> Iterator[None]:
    """Say of an error that it is one of standard output."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"cannot write standard output: {error.strerror}") from error


class TextOutput:
    """A block a video when it ends. Of one that is in progress alone, lines are written as they are known."""

    def __init__(self, run: RunProgress, region: LiveRegion, console: Console, *, merged: bool) -> None:
        self._run = run
        self._region = region
        self._console = console
        self._merged = merged
        self._open: _OpenBlock | None = None

    def event(self, number: int, event: Begun | Event) -> None:
        only_one = self._run.only_one
        if only_one is None:
            return
        video = self._run.in_progress[only_one]
        if isinstance(event, VideoMetadata):
            self._open = None
        if self._open is None and video.metadata is not None:
            with self._region.lifted():
                table = AnswerTable(self._console, _LABEL_WIDTH)
                self._open = _OpenBlock(table, self._run.videos[only_one], video, merged=self._merged)
        elif self._open is not None and isinstance(event, Segment):
            with self._region.lifted():
                self._open.add(event)

    def answer(self, number: int, answer: Answer, before: VideoInProgress) -> None:
        block, self._open = self._open, None
        if isinstance(answer, Failure):
            return
        with self._region.lifted():
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
        return list(merge_segments(segments) if self._merged else segments)


class _OpenBlock:
    """The block of a video whose lines are written as they are known."""

    def __init__(self, table: AnswerTable, name: str, video: VideoInProgress, *, merged: bool) -> None:
        self.table = table
        self._merger = SegmentMerger() if merged else None
        table.header(name, video.metadata)
        for segment in video.segments:
            self.add(segment)

    def add(self, segment: Segment) -> None:
        line = segment if self._merger is None else self._merger.add(segment)
        if line is not None:
            self.table.rows([line])

    def end(self, rest: Iterable[Segment]) -> None:
        """Write what is not written yet, and the segments that came with the answer alone."""
        for segment in rest:
            self.add(segment)
        line = None if self._merger is None else self._merger.finish()
        if line is not None:
            self.table.rows([line])


class InOrder:
    """Holds answers back until all before them, in the order asked, are there."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._held: dict[int, tuple[Answer, VideoInProgress]] = {}
        self._next = 0

    def event(self, number: int, event: Begun | Event) -> None:
        self._output.event(number, event)

    def answer(self, number: int, answer: Answer, before: VideoInProgress) -> None:
        self._held[number] = answer, before
        while self._next in self._held:
            self._output.answer(self._next, *self._held.pop(self._next))
            self._next += 1

    def interrupted(self, videos: dict[int, VideoInProgress]) -> None:
        for number in sorted({*self._held, *videos}):
            if number in videos:
                self._output.interrupted({number: videos[number]})
            else:
                self._output.answer(number, *self._held.pop(number))
