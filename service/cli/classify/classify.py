"""The work of ``tubelet classify``: classify each video, print or keep the answers."""

import os
import signal
import stat
from asyncio import CancelledError
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tubelet.service.cli.classify.answer_files import AnswerFiles, FileOptions
from tubelet.service.cli.classify.embeddings_file import EmbeddingsFile
from tubelet.service.cli.classify.output import (
    JsonOutput,
    NoOutput,
    OrderedOutput,
    Output,
    StandardOutput,
    TextOutput,
)
from tubelet.service.cli.output import answer_json, failure_text
from tubelet.service.cli.pages.answer_pages import AnswerPages, PageOptions
from tubelet.service.cli.runs.interruption import cancel_on_ctrl_c
from tubelet.service.cli.runs.kept_answer import KeptAnswer
from tubelet.service.cli.runs.live_region import LiveRegion
from tubelet.service.cli.runs.progress import RunProgress
from tubelet.service.cli.runs.results_log import FINGERPRINT, ResultsLog, UnwritableResults, open_results
from tubelet.service.cli.runs.runner import (
    Answer,
    Failure,
    Started,
    find_model,
    open_classifier,
    run_as_completed,
)
from tubelet.service.cli.runs.video_sources import STANDARD_INPUT, Source
from tubelet.service.client import ServerError
from tubelet.service.config.config import Config
from tubelet.service.report.text import counted, decodable
from tubelet.service.types.request import Options, Sliding, Views
from tubelet.service.types.result import Classification, Event
from tubelet.service.types.video import MAX_THUMBNAILS, NS_PER_S

_NO_ANSWER = "UNAVAILABLE"  # the code of failures that are the server's, not the video's


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """The form in which answers are printed, and the files that hold them."""

    as_json: bool = False
    stream: bool = False  # with ``as_json``: print events, too
    in_order: bool = False
    all_segments: bool = False
    out: Path | None = None  # keeps the results; no text is printed then
    retry_failed: bool = False
    files: FileOptions = field(default_factory=FileOptions)
    pages: PageOptions | None = None
    embeddings: Path | None = None  # holds the vectors of all videos
    has_labels: bool = True  # whether there is anything else than embeddings


async def classify_all(
    sources: Sequence[Source],
    options: Options,
    server: str | None,
    config: Config,
    output: OutputOptions,
    jobs: int,
) -> int:
    """Classify the sources, ``jobs`` at a time, and return the exit status.

    Answers go to standard output or to ``output.out``; progress and failures go to standard error. If
    ``output.out`` cannot be written, answers are printed as JSON, and the exit status is 1. It is 1, too, if
    one of ``output.files`` or ``output.embeddings`` cannot be written. On Ctrl-C or SIGTERM, the segments so
    far are printed.

    Raises:
        BrokenPipeError: the reader of standard output has gone.
        ResultsMismatch, ResultsInUse, OSError: ``output.out`` names a file of something else, or no file.
        OSError: a page or subtitles would replace a file that tubelet did not write.
        OSError, MissingExtra: ``output.embeddings`` cannot be created.
        ServerError: no server answers; the segments so far are printed.
        tubelet.models.errors.UnknownModel: ``output`` names a file of one model, and there is no such model.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    status, named = None, sources
    with cancel_on_ctrl_c(signal.SIGTERM) as interruption:
        async with AsyncExitStack() as stack:
            log, failed_before, problem, fingerprint = None, 0, None, ""
            if output.out is not None or output.embeddings is not None:
                model = await find_model(server, config, options.model, options.version)
                fingerprint = model.fingerprint
                options = replace(
                    options, model=model.name, version=model.version
                )  # for later runs to compare
            if output.out is not None:
                try:
                    log = stack.enter_context(
                        open_results(output.out, _settings(options, fingerprint), KeptAnswer.of_json)
                    )
                    sources, failed_before = _resume(sources, log, output, errors)
                except UnwritableResults as error:
                    problem, output = error, replace(output, out=None, as_json=True)
            run = _Run(sources, jobs, output, log, errors)
            if output.pages is not None:
                run.pages = AnswerPages(output.pages, named, config.decode, run.report_lost_results, run.say)
                run.pages.check()
                if log is not None:
                    todo = set(sources)
                    kept = {each: log.done[decodable(each.name)] for each in named if each not in todo}
                    run.pages.add_earlier(kept)
                options = replace(options, thumbnails=MAX_THUMBNAILS)
            run.files = stack.enter_context(
                AnswerFiles(output.files, named, run.report_lost_results, continues=bool(log and log.done))
            )
            if output.embeddings is not None:
                embeddings = EmbeddingsFile(output.embeddings, run.say, run.report_lost_results)
                run.embeddings = stack.enter_context(embeddings)
                if log is not None and log.done and (earlier := len(named) - len(sources)):
                    what = counted(earlier, "video")
                    run.say(f"{what} of an earlier run will have no vectors in {output.embeddings}")
            if problem is not None:
                run.report_lost_results(f"{problem}; the answers are printed")
            await run.report_problems()
            if run.numbers:
                with errors.status("connecting" if server else "loading models, starting decode workers"):
                    classify_video = await stack.enter_async_context(open_classifier(server, config, options))
                if not _is_piped(output):
                    await stack.enter_async_context(run.region.shown())
                videos = [(sources[number].name, options) for number in run.numbers]
                items = await stack.enter_async_context(
                    aclosing(run_as_completed(classify_video, videos, jobs))
                )
                try:
                    async with run.pages or nullcontext():
                        async for index, item in items:
                            await run.handle(run.numbers[index], item)
                except (CancelledError, ServerError):
                    run.interrupt()
                    raise
            elif run.pages is not None:
                run.pages.write_index()
            if run.embeddings is not None:
                run.embeddings.close()
            run.summarise()
            status = 1 if run.has_failed or failed_before else 0
    return interruption.status if status is None else status


class _Run:
    """The videos of one command, and the places that their answers go to."""

    def __init__(
        self,
        sources: Sequence[Source],
        jobs: int,
        output: OutputOptions,
        log: ResultsLog[KeptAnswer] | None,
        errors: Console,
    ) -> None:
        self.numbers = [number for number, source in enumerate(sources) if source.problem is None]
        self.progress = RunProgress([source.name for source in sources], jobs)
        self.region = LiveRegion(errors, lambda: self.progress)
        self.files: AnswerFiles | None = None
        self.pages: AnswerPages | None = None
        self.embeddings: EmbeddingsFile | None = None
        self._sources = sources
        self._options = output
        self._log = log
        self._errors = errors
        self._has_lost_results = False
        self._output = self._make_output(output)

    def report_lost_results(self, sentence: str) -> None:
        """Report that results cannot be kept in the file that was asked for."""
        self.say(sentence, "red")
        self._has_lost_results = True

    async def report_problems(self) -> None:
        """Report the sources that are not readable videos as failures."""
        for number, source in enumerate(self._sources):
            if source.problem is not None:
                await self.handle(number, Failure("INVALID_ARGUMENT", "FILE_NOT_READABLE", source.problem))

    async def handle(self, number: int, item: Started | Event | Answer) -> None:
        """Count and print an event or the answer of a source; then write the answer's page."""
        if not isinstance(item, Classification | Failure):
            self.progress.update(number, item)
            self._output.event(number, item)
            if self.embeddings is not None:
                self.embeddings.event(number, item)
            return
        before = self.progress.end(number, item)
        if isinstance(item, Failure):
            self.say(failure_text(self._sources[number].name, item), "red")
        # The thumbnails are the page's.
        shown = item if isinstance(item, Failure) or self.pages is None else replace(item, thumbnails=())
        self._keep(number, shown)
        self._output.answer(number, shown, before)
        if self.files is not None:
            self.files.add(self._sources[number], item)
        if self.pages is not None:
            await self.pages.add(self._sources[number], item)
        if self.embeddings is not None:
            self.embeddings.answer(number, self._sources[number].name, item)

    def interrupt(self) -> None:
        """Print the segments so far of the videos in progress, and how to continue."""
        known = {
            number: video for number, video in self.progress.in_progress.items() if video.metadata is not None
        }
        with self.region.hidden():
            self._output.interrupted(known)
        if len(self._sources) > 1 and (known or self.progress.ended):
            self.say(f"interrupted: {self.progress.summary()}")
        if self._log is not None:
            self.say(f"run the same command again to continue {self._options.out}")

    def summarise(self) -> None:
        """Print how many videos were classified and how many failed, if there were several."""
        if len(self._sources) > 1:
            kept = f"; results are in {self._options.out}" if self._log is not None else ""
            self.say(f"{self.progress.summary()}{kept}")

    @property
    def has_failed(self) -> bool:
        """Whether a video failed, or a result could not be kept."""
        return self.progress.failed > 0 or self._has_lost_results

    def _keep(self, number: int, answer: Answer) -> None:
        """Append the answer to the file of results; if that fails, print it and all later ones."""
        if self._log is None or (isinstance(answer, Failure) and answer.code == _NO_ANSWER):
            return
        try:
            self._log.add(answer_json(self._sources[number].name, answer))
        except OSError as error:
            self.report_lost_results(
                f"cannot write {self._options.out}: {error.strerror}; the answers from here on are printed"
            )
            self._log = None
            printed = self._make_output(replace(self._options, out=None, as_json=True, in_order=False))
            if isinstance(self._output, OrderedOutput):
                self._output.output = printed
            else:
                self._output = printed

    def _make_output(self, options: OutputOptions) -> Output:
        """Choose the form of output that the options ask for."""
        if options.as_json:
            output: Output = JsonOutput(self.progress, self.region, stream=options.stream)
        elif options.out is not None or not options.has_labels:
            output = NoOutput()
        else:
            output = TextOutput(self.progress, self.region, StandardOutput(), merged=not options.all_segments)
        return OrderedOutput(output) if options.in_order else output

    def say(self, sentence: str, style: str = "") -> None:
        """Print a sentence on standard error, above the progress."""
        with self.region.hidden():
            self._errors.print(Text(sentence, style))


def _resume(
    sources: Sequence[Source], log: ResultsLog[KeptAnswer], output: OutputOptions, errors: Console
) -> tuple[Sequence[Source], int]:
    """Return the sources that have no result yet, and how many of the others failed."""
    todo = [source for source in sources if not _is_done(source, log, retry_failed=output.retry_failed)]
    is_todo = set(todo)
    failed = sum(log.done[decodable(each.name)].has_failed for each in sources if each not in is_todo)
    if len(todo) < len(sources):
        note = f" ({failed} failed; --retry-failed classifies them again)" if failed else ""
        done = f"{len(sources) - len(todo)} of {len(sources)} videos are done already{note}"
        errors.print(f"resumed: {done}, in {output.out}")
    return todo, failed


def _is_piped(output: OutputOptions) -> bool:
    """Return whether another program reads the answers: it may print them over the progress."""
    try:
        return (output.as_json or output.out is None) and stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:  # standard output is closed
        return False


def _settings(options: Options, fingerprint: str) -> dict[str, Any]:
    """Return the settings that must be equal in all runs that write to one file of results."""
    windowing = options.windowing
    sliding = windowing if isinstance(windowing, Sliding) else Sliding()
    views = windowing if isinstance(windowing, Views) else None
    return {
        "model": options.model,
        "version": options.version,
        FINGERPRINT: fingerprint or None,
        "top_k": options.top_k,
        "threshold": options.score_threshold,
        "windows": type(windowing).__name__,
        "window_s": _seconds(sliding.window_ns),
        "stride_s": _seconds(sliding.stride_ns),
        "clips": views and views.clips,
        "crops": views and views.crops,
        "ranges_s": [[start / NS_PER_S, end / NS_PER_S] for start, end in options.ranges_ns],
        "fast": options.fast,
        "thumbnails": options.thumbnails or None,  # files of older versions have no such key
        "only_embeddings": options.only_embeddings or None,
        "directory": decodable(os.getcwd()),  # relative paths start there
    }


def _seconds(time_ns: int | None) -> float | None:
    """Convert nanoseconds to seconds; None stays None."""
    return None if time_ns is None else time_ns / NS_PER_S


def _is_done(source: Source, log: ResultsLog[KeptAnswer], *, retry_failed: bool) -> bool:
    """Return whether the results have an answer for the source; standard input is a new video each time."""
    kept = log.done.get(decodable(source.name))
    return source.name != STANDARD_INPUT and kept is not None and not (kept.has_failed and retry_failed)
