"""The work of ``tubelet evaluate``: classify labelled videos, keep the answers, report the accuracy."""

from asyncio import CancelledError
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from tubelet.models.costs import Cost, read_cost
from tubelet.service.cli.evaluation.dataset import (
    InvalidDataset,
    with_model_labels,
)
from tubelet.service.cli.evaluation.evaluation_output import (
    EvaluationOutput,
    print_report,
)
from tubelet.service.cli.evaluation.multilabel.label_evaluation import check_multilabel, print_label_report
from tubelet.service.cli.evaluation.outcomes import (
    TOP_K,
    Outcome,
    outcome_line,
    read_outcome,
    relabelled_line,
)
from tubelet.service.cli.evaluation.page import by_importance
from tubelet.service.cli.evaluation.report import make_report
from tubelet.service.cli.evaluation.report_text import multi_label_note, seen_note
from tubelet.service.cli.evaluation.selection import (
    Labelled,
    options_of,
    seen_in_training,
    select,
    training_clips,
)
from tubelet.service.cli.runs.interruption import INTERRUPTED
from tubelet.service.cli.runs.live_region import LiveRegion
from tubelet.service.cli.runs.output_paths import check_paths
from tubelet.service.cli.runs.progress import RunProgress
from tubelet.service.cli.runs.results_log import FINGERPRINT, ResultsLog, open_results
from tubelet.service.cli.runs.runner import (
    Failure,
    ModelInfo,
    find_model,
    open_classifier,
    run_as_completed,
)
from tubelet.service.cli.train.data.clips import DIVIDER, Clip, read_any_clips
from tubelet.service.cli.train.data.label_names import name_labels
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
    """What this run did, without earlier runs that it continues: videos classified, and failures.

    ``cost`` is that of classifying them in this process; None if a server did.
    """

    classified: int = 0
    seconds: float = 0.0
    cost: Cost | None = None
    failures: dict[str, Failure] = field(default_factory=dict)
    without_picture: dict[str, Failure] = field(default_factory=dict)  # answered by an earlier run

    @property
    def videos_per_s(self) -> float | None:
        """The videos classified in a second; None if there were none."""
        return self.classified / self.seconds if self.classified else None

    @property
    def cost_per_video(self) -> Cost | None:
        """The cost of a video that was classified; None if there were none, or a server did."""
        return self.cost and self.cost.shared_by(self.classified) if self.classified else None

    def json(self) -> dict[str, Any]:
        """Return the speed, the cost and the failures as an object for report.json."""
        reasons = Counter(each.reason or each.code for each in self.failures.values())
        return {
            "videos_per_s": self.videos_per_s,
            "cost_per_video": self.cost_per_video and asdict(self.cost_per_video),
            "failures": dict(reasons.most_common()),
            "skipped": [{"video": name, **asdict(failure)} for name, failure in self.failures.items()],
        }

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each failure."""
        for name, failure in self.failures.items():
            yield f"skipped {name}: {failure.message} ({failure.reason or failure.code})"
        for name, failure in self.without_picture.items():
            yield f"no picture of {name}: {failure.message}"


async def run_evaluation(
    labelled: Labelled,
    requested: Options,
    output: EvaluationOutput,
    server: str | None,
    config: Config,
) -> None:
    """Measure the requested model, version and windowing on labelled videos, and print a report.

    The folder gets results.jsonl (every answer), report.json and confusion.png.

    Raises:
        InvalidDataset: the data cannot be read, its labels are not the model's, or none of it is left.
        ResultsMismatch, ResultsInUse: the folder holds results of other options or data, or another run is
            writing to it.
        OSError: a file cannot be written; the answers so far are kept.
        EvaluationAborted: the options are wrong; the answers so far are kept.
        AllVideosFailed: every video failed; standard error has the reason of each.
        ServerError, UnknownModel: there is no such server or model, or the server is gone; the answers so far
            are kept.
    """
    if output.html is not None:
        check_paths([output.html])
    clips = name_labels(read_any_clips(labelled.data), labelled.labels)
    model = await find_model(server, config, requested.model, requested.version)
    if len(model.labels) == 1 and not any(clip.is_multilabel for clip in clips):
        raise InvalidDataset(
            f"{model.name} has only one label, {model.labels[0]!r}, which comes first in every answer: "
            "no answer could be wrong"
        )
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    seen = None
    if (trained_on := training_clips(server, config, model)) is not None:
        with notes.status("looking for clips that the model was trained on"):
            seen = seen_in_training(clips, trained_on)
    several = any(clip.is_multilabel for clip in clips)
    if several:
        independent = model.activation is Activation.SIGMOID
        check_multilabel(model.name, model.labels, is_independent=independent, most=MAX_TOP_K)
    chosen = select(clips, labelled.only, seen)
    videos = with_model_labels(chosen, model.name, model.labels, DIVIDER if several else None)
    num_seen = None if seen is None else sum(video.name in seen for video in videos)
    if num_seen:
        notes.print(seen_note(num_seen, len(videos), model.name))
    options = Options(
        model.name,
        model.version,
        top_k=_top_k(model),
        windowing=requested.windowing,
        thumbnails=0 if output.html is None else 1,
    )
    out = output.out or Path(f"evaluation-{model.name}-{model.version}")
    settings = _settings(labelled, options, model) | ({"several_labels": True} if several else {})
    # The average precision of a multi-label model's classes needs the scores of all labels.
    is_multi_label = model.activation is Activation.SIGMOID
    index_of = {label: index for index, label in enumerate(model.labels)} if is_multi_label else {}
    with open_results(out / "results.jsonl", settings, partial(read_outcome, index_of=index_of)) as results:
        if done := sum(video.name in results.done for video in videos):
            notes.print(f"resumed: {done} of {len(videos)} videos are done already, in {out}")
        for each in videos:
            known = results.done.get(each.name)
            if known is not None and known.label != each.label:  # it was corrected; --compare reads it, too
                results.add(relabelled_line(known, each.label, index_of))
        try:
            stats = await _classify_missing(videos, options, results, server, config)
        except CancelledError:  # Ctrl-C
            kept = f"{len(results.done)} of {len(videos)} videos are done, in {out}"
            notes.print(f"interrupted: {kept}; run the same command again to continue")
            raise typer.Exit(INTERRUPTED) from None
    for sentence in stats.problems():
        notes.print(sentence)
    outcomes = [results.done[each.name] for each in videos if each.name in results.done]
    if not outcomes:
        raise AllVideosFailed(f"no video could be classified: all {len(videos)} failed")
    told = {"activation": model.activation.value, "seen_in_training": num_seen}
    run = settings | told | stats.json()
    output = replace(output, out=out)
    if several:
        print_label_report(outcomes, model.labels, DIVIDER, run, output)
        return
    report = make_report(outcomes, model.labels)
    if is_multi_label:
        notes.print(multi_label_note(model.name, report))
    print_report(report, outcomes, run, output)


async def _classify_missing(
    videos: Sequence[Clip],
    options: Options,
    results: ResultsLog[Outcome],
    server: str | None,
    config: Config,
) -> _RunStats:
    """Classify the videos that have no result, then some that lack a thumbnail which the options ask for."""
    todo = [video for video in videos if video.name not in results.done]
    stats = await _classify(todo, options, results, server, config)
    if options.thumbnails:
        late = await _classify(_lacking_thumbnails(videos, results), options, results, server, config)
        stats.without_picture = late.failures
    return stats


async def _classify(
    videos: Sequence[Clip],
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
        requests = [(each.video, options_of(each, options)) for each in videos]
        start = None if server else read_cost()
        items = run_as_completed(classify_video, requests, _JOBS)
        async for number, item in await stack.enter_async_context(aclosing(items)):
            video = videos[number]
            if not isinstance(item, Classification | Failure):
                progress.update(number, item)
                continue
            progress.end(number, item)
            if isinstance(item, Classification):
                results.add(outcome_line(video, item, with_thumbnail=options.thumbnails > 0))
            elif item.reason == "MALFORMED_OPTION" and video.range_s is None:  # else the part is at fault
                raise EvaluationAborted(f"evaluation stopped at {video.name}: {item.message}")
            else:
                stats.failures[video.name] = item
        stats.classified, stats.seconds = progress.classified, progress.elapsed_s
        stats.cost = start and read_cost().since(start)
    return stats


def _lacking_thumbnails(videos: Sequence[Clip], results: ResultsLog[Outcome]) -> list[Clip]:
    """Return the videos that a page shows first, and that were classified without a thumbnail."""
    shown = by_importance(list(results.done.values()))[:_MAX_LATE_THUMBNAILS]
    names = {outcome.video for outcome in shown if outcome.thumbnail is None}
    return [video for video in videos if video.name in names]


def _top_k(model: ModelInfo) -> int:
    """Return how many labels to ask for: all of a multi-label model's, whose average precision needs them."""
    if model.activation is Activation.SIGMOID:
        return min(max(TOP_K, len(model.labels)), MAX_TOP_K)
    return TOP_K


def _settings(labelled: Labelled, options: Options, model: ModelInfo) -> dict[str, Any]:
    """Return the settings that must be equal in all runs of one evaluation."""
    views = options.windowing if isinstance(options.windowing, Views) else None
    settings = {
        "model": options.model,
        "version": options.version,
        FINGERPRINT: model.fingerprint or None,
        "data": decodable(str(labelled.data.resolve())),
        "clips": views and views.clips,
        "crops": views and views.crops,
    }
    return settings | ({} if labelled.only is None else {"only": labelled.only})
