"""The command line of ``classify``."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tubelet.service.cli.errors import told
from tubelet.service.cli.options import (
    Clips,
    ConfigFile,
    Crops,
    Json,
    ModelOption,
    ModelVersion,
    ServerAddress,
    check_exclusive,
    model_ref,
    nanoseconds,
    seconds_in_range,
    time_range,
    views,
)
from tubelet.service.cli.runs.video_sources import VIDEO_EXTENSIONS
from tubelet.service.config.config import load_config

_FOLDERS = f"Classify the videos in folders, at any depth: files that end in {', '.join(VIDEO_EXTENSIONS)}."


def classify(
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VIDEO",
            help="Video files, folders with -r, - for standard input, or URIs that fetch.allow covers.",
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help=_FOLDERS)] = False,
    list_file: Annotated[
        str | None,
        typer.Option(
            "--from-file", metavar="LIST", help="A file that names a VIDEO a line; - reads the list."
        ),
    ] = None,
    server: ServerAddress = None,
    config: ConfigFile = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Videos in progress at a time.")] = 4,
    as_json: Json = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="With --json: an object for each event, before the answer's.")
    ] = False,
    in_order: Annotated[
        bool, typer.Option("--in-order", help="Answers in the order asked, not in that of ending.")
    ] = False,
    all_segments: Annotated[
        bool, typer.Option("--all-segments", help="Do not merge neighbours with the same best label in text.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Keep results there, not printed as text; the same command again asks for what is missing.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --out: ask again for videos that failed before.")
    ] = False,
    model: ModelOption = "",
    version: ModelVersion = "",
    top_k: Annotated[int, typer.Option(min=1, metavar="N", help="Labels shown, best first.")] = 3,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, metavar="SCORE", help="Hide labels that score less.")
    ] = 0.0,
    whole_video: Annotated[bool, typer.Option("--whole-video", help="One segment: the whole video.")] = False,
    window: Annotated[
        float | None,
        typer.Option(
            callback=seconds_in_range,
            metavar="SECONDS",
            help="How much of the video one prediction sees. Without it: as much as the model was made for.",
        ),
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option(
            callback=seconds_in_range,
            metavar="SECONDS",
            help="How far a window starts after the one before it, rounded to whole units of the model.",
        ),
    ] = None,
    clips: Clips = None,
    crops: Crops = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="START-END", help="Only this part, in seconds; may be repeated."),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Key frames near the wanted ones will do.")] = False,
    priority: Annotated[
        Literal["low", "normal", "high"],
        typer.Option(metavar="low|normal|high", help="Whose videos go first on a busy server."),
    ] = "normal",
) -> None:
    """Classify videos; exit status 1 when one failed, the others are classified all the same."""
    from tubelet.service.cli.classify.classify import OutputOptions, classify_all
    from tubelet.service.cli.runs.video_sources import find_videos
    from tubelet.service.types.request import Options, Priority, Sliding, WholeVideo

    if not videos and list_file is None:
        raise typer.BadParameter("name a VIDEO, or a list of them with --from-file")
    if stream and not as_json:
        raise typer.BadParameter("--stream goes with --json")
    if retry_failed and out is None:
        raise typer.BadParameter("--retry-failed goes with --out")
    check_exclusive(
        {"--whole-video": whole_video},
        {"--window": window is not None, "--stride": stride is not None},
        {"--clips": clips is not None, "--crops": crops is not None},
    )
    sliding = WholeVideo() if whole_video else Sliding(nanoseconds(window), nanoseconds(stride))
    wanted = model_ref(model, version)
    options = Options(
        model=wanted.name,
        version=wanted.version,
        top_k=top_k,
        score_threshold=threshold,
        windowing=views(clips, crops) or sliding,
        ranges_ns=tuple(time_range(text) for text in ranges or ()),
        fast=fast,
        priority=Priority(priority),
    )
    output = OutputOptions(as_json, stream, in_order, all_segments, out, retry_failed)
    with told(as_json=as_json):
        settings = load_config(config)
        sources = find_videos(videos or (), list_file, recursive=recursive)
        status = asyncio.run(classify_all(sources, options, server, settings, output, jobs))
    if server is None:
        _end_unless_python_can(status)
    raise typer.Exit(status)


def _end_unless_python_can(status: int) -> None:
    """End the process here if a thread is in code that Python cannot end, such as the loading of a model."""
    from tubelet.service.engine.daemon_threads import is_any_at_work

    if is_any_at_work():
        sys.stdout.flush()
        os._exit(status)
