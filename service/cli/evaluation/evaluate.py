"""The work of ``tubelet evaluate``: classify labelled videos, keep the answers, report the accuracy."""

import json
from asyncio import CancelledError
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from tubelet.service.cli.evaluation.confusion_matrix import draw_confusion
from tubelet.service.cli.evaluation.dataset import (
    InvalidDataset,
    LabelledVideo,
    read_labelled,
    with_model_labels,
)
from tubelet.service.cli.evaluation.outcomes import TOP_K, Outcome, outcome_line, read_outcome
from tubelet.service.cli.evaluation.page import by_importance, evaluation_page, save_page
from tubelet.service.cli.evaluation.report import Report, make_report, report_json
from tubelet.service.cli.evaluation.report_text import report_text, title
from tubelet.service.cli.runs.live_region import LiveRegion
from tubelet.service.cli.runs.progress import RunProgress
from tubelet.service.cli.runs.results_log import ResultsLog, open_results
from tubelet.service.cli.runs.runner import (
    Failure,
    ModelInfo,
    find_model,
    open_classifier,
    run_as_completed,
)
from tubelet.service.config.config import Config
from tubelet.service.report.text import decodable
from tubelet.service.types.request import MAX_TOP_K, Options, Views
from tubelet.service.types.result import Activation, Classification

_JOBS = 8
_MAX_LATE_THUMBNAILS = 200  # for which videos of an earlier run are classified again


class EvaluationAborted(Exception):
    """The options are wrong, so that no video can be classified."""


class AllVideosFailed(Exception):
    """No video could be classified."""


@dataclass(slots=True)
class _RunStats:
    """What this run did, without earlier runs that it continues: videos classified, and failures."""

    classified: int = 0
    seconds: float = 0.0
    failures: dict[str, Failure] = field(default_factory=dict)

    @property
    def videos_per_s(self) -> float | None:
        """The videos classified in a second; None if there were none."""
        return self.classified / self.seconds if self.classified else None

    @property
    def failures_by_reason(self) -> dict[str, int]:
        """The number of failures for each reason, the most frequent first."""
        return dict(Counter(each.reason or each.code for each in self.failures.values()).most_common())


@dataclass(frozen=True, slots=True)
class EvaluationOutput:
    """Where the answers and the report of an evaluation go: a folder, standard output, a page."""

    out: Path | None = None  # default: a folder named after the model
    as_json: bool = False
    html: Path | None = None


async def run_evaluation(
    data: Path, requested: Options, output: EvaluationOutput, server: str | None, config: Config
) -> None:
    """Measure the requested model, version and windowing on labelled videos, and print a report.

    The folder gets results.jsonl (every answer), report.json and confusion.png.

    Raises:
        InvalidDataset: the data cannot be read, or its labels are not the model's.
        ResultsMismatch, ResultsInUse: the folder holds results of other options or data, or another run is
            writing to it.
        OSError: a file cannot be written; the answers so far are kept.
        EvaluationAborted: the options are wrong; the answers so far are kept.
        AllVideosFailed: every video failed; standard error has the reason of each.
        ServerError, UnknownModel: there is no such server or model, or the server is gone; the answers so far
            are kept.
    """
    videos = [replace(video, name=decodable(video.name)) for video in read_labelled(data)]
    model = await find_model(server, config, requested.model, requested.version)
    if len(model.labels) == 1:
        raise InvalidDataset(
            f"{model.name} has only one label, {model.labels[0]!r}, which comes first in every answer: "
            "no answer could be wrong"
        )
    videos = with_model_labels(videos, model.name, model.labels)
    options = Options(
        model.name,
        model.version,
        top_k=_top_k(model),
        windowing=requested.windowing,
        thumbnails=0 if output.html is None else 1,
    )
    out = output.out or Path(f"evaluation-{model.name}-{model.version}")
    settings = _settings(data, options)
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    # The average precision of a multi-label model's classes needs the scores of all labels.
    is_multi_label = model.activation is Activation.SIGMOID
    index_of = {label: index for index, label in enumerate(model.labels)} if is_multi_label else {}
    with open_results(out / "results.jsonl", settings, partial(read_outcome, index_of=index_of)) as results:
        todo = [video for video in videos if video.name not in results.done]
        if len(todo) < len(videos):
            done = f"{len(videos) - len(todo)} of {len(videos)} videos are done already"
            notes.print(f"resumed: {done}, in {out}")
        try:
            stats = await _classify(todo, options, results, server, config)
            if output.html is not None:
                missing = _lacking_thumbnails(videos, results)
                late = await _classify(missing, options, results, server, config)
                for name, failure in late.failures.items():
                    notes.print(f"no picture of {name}: {failure.message}")
        except CancelledError:  # Ctrl-C
            kept = f"{len(results.done)} of {len(videos)} videos are done, in {out}"
            notes.print(f"interrupted: {kept}; run the same command again to continue")
            raise
    for name, failure in stats.failures.items():
        notes.print(f"skipped {name}: {failure.message} ({failure.reason or failure.code})")
    outcomes = [
        results.done[each.name].with_label(each.label) for each in videos if each.name in results.done
    ]
    if not outcomes:
        raise AllVideosFailed(f"no video could be classified: all {len(videos)} failed")
    report = make_report(outcomes, model.labels)
    note = _multi_label_note(model.name, report) if is_multi_label else ""
    if note:
        notes.print(note)
    run = {
        "videos_per_s": stats.videos_per_s,
        "failures": stats.failures_by_reason,
        "skipped": [{"video": name, **asdict(failure)} for name, failure in stats.failures.items()],
    }
    _write_report(report, settings | report_json(report) | run, out, as_json=output.as_json)
    if output.html is not None:
        save_page(output.html, evaluation_page(report, outcomes, settings | run, note))
        if not output.as_json:
            print(f"the page is {output.html}")


def _write_report(report: Report, content: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """Write report.json and confusion.png to ``out``, and print the report."""
    (out / "report.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    draw_confusion(report.labels, report.confusion).save(out / "confusion.png")
    if as_json:
        print(json.dumps(content, ensure_ascii=False))
        return
    rate = "" if content["videos_per_s"] is None else f", {content['videos_per_s']:.2f} videos/s"
    reasons = ", ".join(f"{count} {reason}" for reason, count in content["failures"].items())
    skipped = f"{len(content['skipped'])} skipped" + (f" ({reasons})" if reasons else "")
    print(f"{title(content)}: {report.videos} videos, {skipped}{rate}\n")
    print(f"{report_text(report)}\n\nreport.json, confusion.png and results.jsonl are in {out}")


async def _classify(
    videos: Sequence[LabelledVideo],
    options: Options,
    results: ResultsLog[Outcome],
    server: str | None,
    config: Config,
) -> _RunStats:
    """Classify the videos and append their labels to the results."""
    stats = _RunStats()
    if not videos:
        return stats
    console = Console(stderr=True)
    progress = RunProgress([each.name for each in videos], _JOBS)
    async with AsyncExitStack() as stack:
        with console.status("connecting" if server else "loading the model, starting decode workers"):
            classify_video = await stack.enter_async_context(open_classifier(server, config, options))
        await stack.enter_async_context(LiveRegion(console, lambda: progress).shown())
        items = run_as_completed(classify_video, [each.video for each in videos], options, _JOBS)
        async for number, item in await stack.enter_async_context(aclosing(items)):
            video = videos[number]
            if not isinstance(item, Classification | Failure):
                progress.update(number, item)
                continue
            progress.end(number, item)
            if isinstance(item, Classification):
                results.add(outcome_line(video, item, with_thumbnail=options.thumbnails > 0))
            elif item.reason == "MALFORMED_OPTION":
                raise EvaluationAborted(f"evaluation stopped at {video.name}: {item.message}")
            else:
                stats.failures[video.name] = item
        stats.classified, stats.seconds = progress.classified, progress.elapsed_s
    return stats


def _lacking_thumbnails(videos: Sequence[LabelledVideo], results: ResultsLog[Outcome]) -> list[LabelledVideo]:
    """Return the videos that a page shows first, and that were classified without a thumbnail."""
    shown = by_importance(list(results.done.values()))[:_MAX_LATE_THUMBNAILS]
    names = {outcome.video for outcome in shown if outcome.thumbnail is None}
    return [video for video in videos if video.name in names]


def _top_k(model: ModelInfo) -> int:
    """Return how many labels to ask for: all of a multi-label model's, whose average precision needs them."""
    if model.activation is Activation.SIGMOID:
        return min(max(TOP_K, len(model.labels)), MAX_TOP_K)
    return TOP_K


def _multi_label_note(model: str, report: Report) -> str:
    """Say what the figures of a multi-label model mean."""
    note = (
        f"{model} scores each label independently: a video is right at top 1 if its label has the highest "
        "score, however low, although others may be true, too"
    )
    if report.mean_average_precision is not None:
        return f"{note}; mAP is the mean over classes of how well the class's own videos come first"
    return f"{note}; there is no mAP, because some results lack the scores of all labels"


def _settings(data: Path, options: Options) -> dict[str, Any]:
    """Return the settings that must be equal in all runs of one evaluation."""
    views = options.windowing if isinstance(options.windowing, Views) else None
    return {
        "model": options.model,
        "version": options.version,
        "data": decodable(str(data.resolve())),
        "clips": views and views.clips,
        "crops": views and views.crops,
    }
