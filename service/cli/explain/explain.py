"""The work of ``tubelet explain``: ask for the maps, write the files, print where the maps have mass."""

import json
from asyncio import CancelledError
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rich.console import Console

from tubelet.models.errors import CannotExplain
from tubelet.models.repository.model_folder import Entry
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.service.cli.explain.explained_files import ExplainedFiles, default_folder
from tubelet.service.cli.explain.output import explained_json, explained_lines
from tubelet.service.cli.explain.questions import DEFAULT_METHOD, FALLBACK_METHOD, Asked, ExplainedRun
from tubelet.service.cli.explain.window_heads import explain_heads
from tubelet.service.cli.runs.interruption import INTERRUPTED, cancel_on_ctrl_c
from tubelet.service.cli.runs.runner import file_chunks
from tubelet.service.config.config import Config
from tubelet.service.errors import TubeletError
from tubelet.service.report.maps.head_sheet import WindowHeads
from tubelet.service.report.text import clock, decodable, printable
from tubelet.service.server.local import LocalPipeline
from tubelet.service.types.explanation import ExplainedVideo, ExplainEvent, ExplainOptions, SegmentMap
from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.request import Options
from tubelet.service.types.result import Progress, Segment
from tubelet.service.types.video import MAX_THUMBNAILS

_NO_SUCH_METHOD = "METHOD_NOT_SUPPORTED"  # the reason of a family that does not have the method


async def explain_video(
    video: str, asked: Asked, model: ModelRef, out: Path | None, config: Config, *, as_json: bool
) -> int:
    """Explain the file ``video``, write what ``out`` will hold, and return the exit status.

    The result goes to standard output, progress to standard error.

    Raises:
        OSError: the file cannot be read, or a file cannot be written.
        TubeletError: the video cannot be explained.
        tubelet.models.errors.UnknownModel: there is no such model.
    """
    _check_readable(video)
    files = ExplainedFiles(out or default_folder(video), config.decode)
    files.check()
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    with cancel_on_ctrl_c():
        try:
            with console.status("loading the model, starting decode workers") as status:
                explainer = _Explainer(video, model, config, status.update)
                runs = await explainer.runs(asked)
                heads = await explainer.heads(runs[0].answer)
                files.notes += explainer.notes
                await files.write(video, runs, heads, status.update)
        except CancelledError:
            written = f"; written: {', '.join(map(str, files.written))}" if files.written else ""
            console.print(f"interrupted{written}")
            if as_json:
                print(json.dumps({"video": decodable(video), "interrupted": True}), flush=True)
            raise
        if as_json:
            print(json.dumps(explained_json(video, runs, files), ensure_ascii=False), flush=True)
        else:
            for line in explained_lines(video, runs, files):
                print(line)
        return 0
    return INTERRUPTED


class _Explainer:
    """Explains one video by one model; ``say`` gets the progress, ``notes`` are sentences for the user."""

    def __init__(self, video: str, model: ModelRef, config: Config, say: Callable[[str], None]) -> None:
        self.notes: list[str] = []
        self._video = video
        self._config = config
        self._say = say
        self._wanted = model.or_default(config.models.default_ref)

    async def runs(self, asked: Asked) -> list[ExplainedRun]:
        """Ask for all maps. Without a method, that of families without the default one stands in for it."""
        async with LocalPipeline(self._config) as pipeline:
            try:
                return [await self._run(pipeline, each) for each in asked.runs()]
            except TubeletError as error:
                if asked.methods or error.reason != _NO_SUCH_METHOD:
                    raise
            self.notes.append(
                f"{self._wanted.name} has no {DEFAULT_METHOD}: its family is explained by {FALLBACK_METHOD}"
            )
            return [await self._run(pipeline, each) for each in asked.runs(FALLBACK_METHOD)]

    async def heads(self, answer: ExplainedVideo) -> WindowHeads | None:
        """Explain the window of the surest segment by each head; None if the family has none to be seen."""
        entry = self._find()
        self._say("explaining one window by every head")
        segment = max((each.segment for each in answer.maps), key=_best_score)
        try:
            return await explain_heads(self._video, entry, segment, self._config.decode)
        except CannotExplain:
            self.notes.append(
                f"there is no heads.png: family {entry.spec.family} has no attention that can be seen"
            )
            return None

    def _find(self) -> Entry:
        """Return the model's folder."""
        return ModelStore(ZOO, self._config.models.store).find(self._wanted.name, self._wanted.version)

    async def _run(self, pipeline: LocalPipeline, asked: ExplainOptions) -> ExplainedRun:
        """Ask for the maps of one question."""
        maps: list[SegmentMap] = []
        of = " ".join(filter(None, (asked.method, *asked.labels)))

        async def keep(event: ExplainEvent) -> None:
            """Keep the maps, and report the progress."""
            if isinstance(event, SegmentMap):
                maps.append(event)
                self._say(f"{printable(of)}: explained up to {clock(event.segment.end_ns)}")
            elif isinstance(event, Progress) and not maps:
                self._say(f"{printable(of)}: decoded {event.decoded_s:.0f} of {event.total_s:.0f} s")

        options = Options(self._wanted.name, self._wanted.version, thumbnails=MAX_THUMBNAILS)
        with _open_file(self._video) as file:
            found = await pipeline.explain(file_chunks(file), options, asked, keep)
        return ExplainedRun(asked, ExplainedVideo(found, tuple(maps)))


def _best_score(segment: Segment) -> float:
    """Return the score of a segment's best label."""
    return segment.labels[0].score if segment.labels else 0.0


def _open_file(path: str) -> BinaryIO:
    """Open a video file for reading."""
    return open(path, "rb")


def _check_readable(video: str) -> None:
    """Check that ``video`` is a file that can be read, before anything is loaded.

    Raises:
        OSError: it is not; the message is a sentence.
    """
    try:
        with _open_file(video):
            return
    except OSError as error:
        raise OSError(f"cannot read {printable(video)}: {error.strerror}") from error
