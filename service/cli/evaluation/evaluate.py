"""What ``evaluate`` does: ask for the labels of labelled videos, keep them, report how many are right."""

import json
from asyncio import CancelledError
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tubelet.service.cli.evaluation.confusion_matrix import draw_confusion
from tubelet.service.cli.evaluation.dataset import BadData, LabelledVideo, read_labelled, with_model_labels
from tubelet.service.cli.evaluation.report import (
    TOP_K,
    Outcome,
    Report,
    make_report,
    report_json,
    report_text,
)
from tubelet.service.cli.output import decodable
from tubelet.service.cli.runs.live_region import LiveRegion
from tubelet.service.cli.runs.progress import RunProgress
from tubelet.service.cli.runs.results_log import ResultsLog, open_results
from tubelet.service.cli.runs.runner import Failure, ask_each, asking_here, asking_server, find_model
from tubelet.service.config.config import Config
from tubelet.service.types.request import Options, Views
from tubelet.service.types.result import Activation, Classification

_VIDEOS_AT_ONCE = 8


class Stopped(Exception):
    """No video can be classified: the options are wrong."""


class NothingClassified(Exception):
    """Every video failed."""


@dataclass(slots=True)
class _Run:
    """What this run did, beside earlier ones: how many videos a second, and what it had to skip."""

    classified: int = 0
    seconds: float = 0.0
    failures: dict[str, Failure] = field(default_factory=dict)

    @property
    def videos_per_s(self) -> float | None:
        return self.classified / self.seconds if self.classified else None


async def evaluate(
    data: Path, wanted: Options, out: Path | None, server: str | None, config: Config, *, as_json: bool
) -> None:
    """Print a report on the wanted model, version and windowing.

    ``out`` gets results.jsonl (every answer), report.json and confusion.png.

    Raises:
        BadData: the data cannot be read, or its labels are not the model's.
        ResultsMismatch, ResultsInUse: ``out`` holds one of other options or data, or another
            run writes to it.
        Stopped: the answers so far are kept.
        NothingClassified: standard error says of each video why.
        ServerError, UnknownModel: there is no such server or model, or the
            server is gone; the answers so far are kept.
    """
    videos = [replace(video, name=decodable(video.name)) for video in read_labelled(data)]
    model = await find_model(server, config, wanted.model, wanted.version)
    if len(model.labels) == 1:
        raise BadData(
            f"{model.name} has one label, {model.labels[0]!r}, which comes first in every answer: there is "
            "nothing that an evaluation could count as wrong"
        )
    videos = with_model_labels(videos, model.name, model.labels)
    options = Options(model.name, model.version, top_k=TOP_K, windowing=wanted.windowing)
    out = out or Path(f"evaluation-{model.name}-{model.version}")
    asked = _asked(data, options)
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if model.activation is Activation.SIGMOID:
        notes.print(
            f"{model.name} scores each label by itself: a video counts as right at top 1 where its label has "
            "the highest score, however low"
        )
    with open_results(out / "results.jsonl", asked, _predicted) as results:
        todo = [video for video in videos if video.name not in results.done]
        if len(todo) < len(videos):
            done = f"{len(videos) - len(todo)} of {len(videos)} videos are done already"
            notes.print(f"resumed: {done}, in {out}")
        try:
            run = await _ask(todo, options, results, server, config)
        except CancelledError:  # Ctrl-C
            kept = f"{len(results.done)} of {len(videos)} videos are done, in {out}"
            notes.print(f"interrupted: {kept}; run the same command again to continue")
            raise
    for name, failure in run.failures.items():
        notes.print(f"skipped {name}: {failure.message} ({failure.reason or failure.code})")
    outcomes = [Outcome(each.label, results.done[each.name]) for each in videos if each.name in results.done]
    if not outcomes:
        raise NothingClassified(f"nothing could be classified: all of {len(videos)} videos failed")
    _report(make_report(outcomes, model.labels), run, asked, out, as_json=as_json)


def _report(report: Report, run: _Run, asked: dict[str, Any], out: Path, *, as_json: bool) -> None:
    skipped = [{"video": name, **asdict(failure)} for name, failure in run.failures.items()]
    said = asked | report_json(report) | {"videos_per_s": run.videos_per_s, "skipped": skipped}
    (out / "report.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    draw_confusion(report.labels, report.confusion).save(out / "confusion.png")
    if as_json:
        print(json.dumps(said, ensure_ascii=False))
        return
    rate = "" if run.videos_per_s is None else f", {run.videos_per_s:.2f} videos/s"
    print(f"{_title(asked)}: {report.videos} videos, {len(skipped)} skipped{rate}\n")
    print(f"{report_text(report)}\n\nreport.json, confusion.png and results.jsonl are in {out}")


async def _ask(
    videos: Sequence[LabelledVideo],
    options: Options,
    results: ResultsLog[tuple[str, ...]],
    server: str | None,
    config: Config,
) -> _Run:
    """Classify the videos and keep their labels."""
    run = _Run()
    if not videos:
        return run
    console = Console(stderr=True)
    progress = RunProgress([each.name for each in videos], _VIDEOS_AT_ONCE)
    async with AsyncExitStack() as stack:
        with console.status("connecting" if server else "loading the model, starting decode workers"):
            asking = asking_server(server) if server else asking_here(config, options.model, options.version)
            ask = await stack.enter_async_context(asking)
        await stack.enter_async_context(LiveRegion(console, lambda: progress).shown())
        items = ask_each(ask, [each.video for each in videos], options, _VIDEOS_AT_ONCE)
        async for number, item in await stack.enter_async_context(aclosing(items)):
            video = videos[number]
            if not isinstance(item, Classification | Failure):
                progress.update(number, item)
                continue
            progress.end(number, item)
            if isinstance(item, Classification):
                results.add(_result(video, item))
            elif item.reason == "MALFORMED_OPTION":
                raise Stopped(f"stopped at {video.name}: {item.message}")
            else:
                run.failures[video.name] = item
        run.classified, run.seconds = progress.classified, progress.elapsed_s
    return run


def _result(video: LabelledVideo, answer: Classification) -> dict[str, Any]:
    """The line that results.jsonl has for a video."""
    labels = [{"label": label.name, "score": label.score} for label in answer.labels]
    return {"video": video.name, "label": video.label, "labels": labels}


def _predicted(result: dict[str, Any]) -> tuple[str, ...]:
    """The labels of a line of results.jsonl, best first."""
    return tuple(label["label"] for label in result["labels"])


def _asked(data: Path, options: Options) -> dict[str, Any]:
    """What must not differ between the runs of one evaluation; no clips and crops: sliding windows."""
    views = options.windowing if isinstance(options.windowing, Views) else None
    return {
        "model": options.model,
        "version": options.version,
        "data": decodable(str(data.resolve())),
        "clips": views and views.clips,
        "crops": views and views.crops,
    }


def _title(asked: dict[str, Any]) -> str:
    windowing = (
        "sliding windows" if asked["clips"] is None else f"{asked['clips']} clips x {asked['crops']} crops"
    )
    return f"{asked['model']} {asked['version']}, {windowing}, {asked['data']}"
