"""What ``classify`` does: ask for each video, write answers as they come, keep them in a file."""

import os
import stat
from asyncio import CancelledError
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tubelet.service.cli.classify.output import (
    InOrder,
    JsonOutput,
    NoOutput,
    Output,
    StandardOutput,
    TextOutput,
)
from tubelet.service.cli.output import answer_json, decodable, failure_text
from tubelet.service.cli.runs.interruption import INTERRUPTED, cancelled_by_ctrl_c
from tubelet.service.cli.runs.live_region import LiveRegion
from tubelet.service.cli.runs.progress import RunProgress
from tubelet.service.cli.runs.results_log import ResultsLog, open_results
from tubelet.service.cli.runs.runner import (
    Answer,
    Ask,
    Begun,
    Event,
    Failure,
    ask_each,
    asking_here,
    asking_server,
    find_model,
)
from tubelet.service.cli.runs.video_sources import STANDARD_INPUT, Source
from tubelet.service.client import ServerError
from tubelet.service.config.config import Config
from tubelet.service.types.request import Options, Sliding, Views
from tubelet.service.types.result import Classification
from tubelet.service.types.video import NS_PER_S

_NO_ANSWER = "UNAVAILABLE"  # the code of failures that say nothing about the video


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """In which form answers are written, and where they are kept."""

    as_json: bool = False
    stream: bool = False  # with ``as_json``: events, too
    in_order: bool = False
    all_segments: bool = False
    out: Path | None = None  # results go there instead of to standard output, as text
    retry_failed: bool = False


async def classify_all(
    sources: Sequence[Source],
    options: Options,
    server: str | None,
    config: Config,
    output: OutputOptions,
    jobs: int,
) -> int:
    """Classify the sources, ``jobs`` at a time; returns the exit status.

    Answers go to standard output or to ``output.out``; progress and failures go to standard error. Ctrl-C
    writes what is known so far.

    Raises:
        BrokenPipeError: nothing reads standard output any more.
        ResultsMismatch, ResultsInUse, OSError: ``output.out`` cannot be used.
        ServerError: no server answers; what is known until then is written.
        tubelet.models.repository.repository.UnknownModel: with ``output.out``, there is no such model.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    status = INTERRUPTED
    with cancelled_by_ctrl_c():
        async with AsyncExitStack() as stack:
            log, failed_before = None, 0
            if output.out is not None:
                options = await _with_version(options, server, config)
                log = stack.enter_context(open_results(output.out, _settings(options), _is_failure))
                sources, failed_before = _resume(sources, log, output, errors)
            run = _Run(sources, jobs, output, log, errors)
            run.report_problems()
            if run.numbers:
                with errors.status("connecting" if server else "loading models, starting decode workers"):
                    ask = await stack.enter_async_context(_asking(options, server, config))
                if not _is_piped(output):
                    await stack.enter_async_context(run.region.shown())
                videos = [sources[number].name for number in run.numbers]
                items = await stack.enter_async_context(aclosing(ask_each(ask, videos, options, jobs)))
                try:
                    async for index, item in items:
                        run.take(run.numbers[index], item)
                except (CancelledError, ServerError):
                    run.interrupt()
                    raise
            run.summarise()
            status = 1 if run.has_failed or failed_before else 0
    return status


class _Run:
    """The videos of one command, and where their answers go."""

    def __init__(
        self,
        sources: Sequence[Source],
        jobs: int,
        output: OutputOptions,
        log: ResultsLog[bool] | None,
        errors: Console,
    ) -> None:
        self.numbers = [number for number, source in enumerate(sources) if source.problem is None]
        self.progress = RunProgress([source.name for source in sources], jobs)
        self.region = LiveRegion(errors, lambda: self.progress)
        self._sources = sources
        self._options = output
        self._log = log
        self._errors = errors
        self._is_unkept = False
        self._output = self._make_output(output)

    def report_problems(self) -> None:
        """Report the sources that cannot be classified."""
        for number, source in enumerate(self._sources):
            if source.problem is not None:
                self.take(number, Failure("INVALID_ARGUMENT", "FILE_NOT_READABLE", source.problem))

    def take(self, number: int, item: Begun | Event | Answer) -> None:
        """Take an event or the answer of a source into account, and write it."""
        if not isinstance(item, Classification | Failure):
            self.progress.update(number, item)
            self._output.event(number, item)
            return
        before = self.progress.end(number, item)
        if isinstance(item, Failure):
            self._say(failure_text(self._sources[number].name, item), "red")
        self._keep(number, item)
        self._output.answer(number, item, before)

    def interrupt(self) -> None:
        """Write what is known of the videos in progress."""
        known = {
            number: video for number, video in self.progress.in_progress.items() if video.metadata is not None
        }
        with self.region.lifted():  # once, however many they are
            self._output.interrupted(known)
        if len(self._sources) > 1 and (known or self.progress.ended):
            self._say(f"interrupted: {self.progress.summary()}")
        if self._log is not None:
            self._say(f"run the same command again to continue {self._options.out}")

    def summarise(self) -> None:
        if len(self._sources) > 1:
            kept = f"; results are in {self._options.out}" if self._log is not None else ""
            self._say(f"{self.progress.summary()}{kept}")

    @property
    def has_failed(self) -> bool:
        return self.progress.failed > 0 or self._is_unkept

    def _keep(self, number: int, answer: Answer) -> None:
        if self._log is None or (isinstance(answer, Failure) and answer.code == _NO_ANSWER):
            return
        try:
            self._log.add(answer_json(self._sources[number].name, answer))
        except OSError as error:
            self._say(
                f"cannot write {self._options.out}: {error.strerror}; further answers are printed", "red"
            )
            self._log, self._is_unkept = None, True
            self._output = self._make_output(replace(self._options, out=None, as_json=True))

    def _make_output(self, options: OutputOptions) -> Output:
        if options.as_json:
            output: Output = JsonOutput(self.progress, self.region, stream=options.stream)
        elif options.out is not None:
            output = NoOutput()
        else:
            output = TextOutput(self.progress, self.region, StandardOutput(), merged=not options.all_segments)
        return InOrder(output) if options.in_order else output

    def _say(self, sentence: str, style: str = "") -> None:
        with self.region.lifted():
            self._errors.print(Text(sentence, style))


def _resume(
    sources: Sequence[Source], log: ResultsLog[bool], output: OutputOptions, errors: Console
) -> tuple[Sequence[Source], int]:
    """The sources that have no result yet, and how many of the others failed."""
    todo = [source for source in sources if not _is_done(source, log, retry_failed=output.retry_failed)]
    is_todo = set(todo)
    failed = sum(log.done[decodable(each.name)] for each in sources if each not in is_todo)
    if len(todo) < len(sources):
        note = f" ({failed} failed; --retry-failed asks for them again)" if failed else ""
        done = f"{len(sources) - len(todo)} of {len(sources)} videos are done already{note}"
        errors.print(f"resumed: {done}, in {output.out}")
    return todo, failed


def _is_piped(output: OutputOptions) -> bool:
    """Whether another program reads the answers: it may write to the same terminal, over the progress."""
    try:
        return (output.as_json or output.out is None) and stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:  # standard output is closed
        return False


def _asking(options: Options, server: str | None, config: Config) -> AbstractAsyncContextManager[Ask]:
    return asking_server(server) if server else asking_here(config, options.model, options.version)


async def _with_version(options: Options, server: str | None, config: Config) -> Options:
    """The options with the model and version that answer now, so that no other one continues the results."""
    model = await find_model(server, config, options.model, options.version)
    return replace(options, model=model.name, version=model.version)


def _settings(options: Options) -> dict[str, Any]:
    """What must be the same in every run that writes to one file of results."""
    windowing = options.windowing
    sliding = windowing if isinstance(windowing, Sliding) else Sliding()
    views = windowing if isinstance(windowing, Views) else None
    return {
        "model": options.model,
        "version": options.version,
        "top_k": options.top_k,
        "threshold": options.score_threshold,
        "windows": type(windowing).__name__,
        "window_s": _seconds(sliding.window_ns),
        "stride_s": _seconds(sliding.stride_ns),
        "clips": views and views.clips,
        "crops": views and views.crops,
        "ranges_s": [[start / NS_PER_S, end / NS_PER_S] for start, end in options.ranges_ns],
        "fast": options.fast,
        "directory": decodable(os.getcwd()),  # which relative paths start from
    }


def _seconds(time_ns: int | None) -> float | None:
    return None if time_ns is None else time_ns / NS_PER_S


def _is_failure(result: dict[str, Any]) -> bool:
    return "error" in result


def _is_done(source: Source, log: ResultsLog[bool], *, retry_failed: bool) -> bool:
    """Whether the results have an answer to the source; standard input is another video each time."""
    has_failed = log.done.get(decodable(source.name))
    return source.name != STANDARD_INPUT and has_failed is not None and not (has_failed and retry_failed)
