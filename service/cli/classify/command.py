"""The arguments of ``tubelet classify``."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer

from tubelet.service.cli.errors import report_errors
from tubelet.service.cli.options import (
    Ca,
    Cert,
    Clips,
    ConfigFile,
    Crops,
    Fast,
    Json,
    Key,
    ModelOption,
    ModelVersion,
    ServerAddress,
    ServerName,
    Stride,
    Threshold,
    TokenFile,
    TokenText,
    TopK,
    UseTls,
    WholeVideoOption,
    Window,
    check_embeddings,
    check_exclusive,
    client_flags,
    model_ref,
    time_range,
    windowing,
)
from tubelet.service.config.config import load_config
from tubelet.service.ingest.video_folder import VIDEO_EXTENSIONS

_FOLDERS = (
    f"Classify the videos in folders, at any depth: files with the extension {', '.join(VIDEO_EXTENSIONS)}."
)


def classify(
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VIDEO",
            help="Video files; with -r, folders; - for standard input; URIs that fetch.allow covers.",
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help=_FOLDERS)] = False,
    list_file: Annotated[
        str | None,
        typer.Option(
            "--from-file",
            metavar="LIST",
            help="A file with one VIDEO a line; - reads the list from standard input.",
        ),
    ] = None,
    server: ServerAddress = None,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    server_name: ServerName = None,
    token: TokenText = None,
    token_file: TokenFile = None,
    config: ConfigFile = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Videos to classify at the same time.")] = 4,
    as_json: Json = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="With --json: print an object for each event, before the answer.")
    ] = False,
    in_order: Annotated[
        bool,
        typer.Option(
            "--in-order", help="Print answers in the order of the arguments, not as they are ready."
        ),
    ] = False,
    all_segments: Annotated[
        bool,
        typer.Option(
            "--all-segments",
            help="In text, print each segment: do not merge neighbours with the same best label.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Keep results in this file instead of printing text; the same command again continues.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --out: classify videos again that failed before.")
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the labels of all segments to this table."),
    ] = None,
    srt: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.srt|FOLDER",
            help="Also write labels as SubRip subtitles; a folder for several videos.",
        ),
    ] = None,
    vtt: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.vtt|FOLDER", help="Also write labels as WebVTT subtitles, which browsers show."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html|FOLDER",
            help="Also write a page of each answer, with the video in it; a folder for several videos.",
        ),
    ] = None,
    html_mb: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="MB",
            help="With --html: largest page, by default 25; a video that does not fit is left out.",
        ),
    ] = None,
    no_video: Annotated[
        bool, typer.Option("--no-video", help="With --html: pages with pictures only, without the video.")
    ] = False,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz|FILE.parquet", help="Also write vectors of all videos to this file, a new one."
        ),
    ] = None,
    embedding_level: Annotated[
        Literal["unit", "window", "video"],
        typer.Option(metavar="unit|window|video", help="With --embeddings: what a vector is of."),
    ] = "window",
    embedding_dtype: Annotated[
        Literal["float32", "float16"],
        typer.Option(metavar="float32|float16", help="With --embeddings: the format of the numbers."),
    ] = "float32",
    normalise: Annotated[
        bool, typer.Option("--normalise", help="With --embeddings: give vectors the length 1.")
    ] = False,
    only_embeddings: Annotated[
        bool, typer.Option("--only-embeddings", help="With --embeddings: compute no labels.")
    ] = False,
    model: ModelOption = "",
    version: ModelVersion = "",
    top_k: TopK = 3,
    threshold: Threshold = 0.0,
    whole_video: WholeVideoOption = False,
    window: Window = None,
    stride: Stride = None,
    clips: Clips = None,
    crops: Crops = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range", metavar="START-END", help="Classify only this time range, in seconds; may be repeated."
        ),
    ] = None,
    thumbnails: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="With --json or --out: add at most N small pictures, as JPEG in base64."
        ),
    ] = 0,
    fast: Fast = False,
    priority: Annotated[
        Literal["low", "normal", "high"],
        typer.Option(metavar="low|normal|high", help="Scheduling priority on a busy server."),
    ] = "normal",
) -> None:
    """Classify videos. One failed video does not stop the others; the exit status is then 1.

    --html, --srt and --vtt replace files that tubelet wrote, and no others.
    """
    from tubelet.service.cli.classify.answer_files import FileOptions
    from tubelet.service.cli.classify.classify import OutputOptions, classify_all
    from tubelet.service.cli.pages.answer_pages import PageOptions
    from tubelet.service.cli.runs.video_sources import find_videos
    from tubelet.service.types.embeddings import EmbeddingLevel
    from tubelet.service.types.request import Options, Priority

    if not videos and list_file is None:
        raise typer.BadParameter("no video given: name a VIDEO, or a list with --from-file")
    if stream and not as_json:
        raise typer.BadParameter("--stream needs --json")
    if retry_failed and out is None:
        raise typer.BadParameter("--retry-failed needs --out")
    if thumbnails and not as_json and out is None:
        raise typer.BadParameter("--thumbnails needs --json or --out")
    if html is None and (no_video or html_mb is not None):
        raise typer.BadParameter(f"{'--no-video' if no_video else '--html-mb'} needs --html")
    check_exclusive({"--html": html is not None}, {"--thumbnails": thumbnails > 0})
    check_embeddings(embeddings, {"--normalise": normalise, "--only-embeddings": only_embeddings})
    check_exclusive(
        {"--only-embeddings": only_embeddings},
        {
            "--csv": csv is not None,
            "--srt": srt is not None,
            "--vtt": vtt is not None,
            "--html": html is not None,
        },
    )
    windows = windowing(window, stride, clips, crops, whole_video=whole_video)
    ref = model_ref(model, version)
    options = Options(
        model=ref.name,
        version=ref.version,
        top_k=top_k,
        score_threshold=threshold,
        windowing=windows,
        ranges_ns=tuple(time_range(text) for text in ranges or ()),
        fast=fast,
        thumbnails=thumbnails,
        priority=Priority(priority),
        embeddings=None if embeddings is None else EmbeddingLevel(embedding_level),
        embedding_dtype=embedding_dtype,
        normalise_embeddings=normalise,
        only_embeddings=only_embeddings,
    )
    files = FileOptions(csv, srt, vtt)
    pages = None if html is None else PageOptions.of_megabytes(html, html_mb, has_video=not no_video)
    output = OutputOptions(
        as_json,
        stream,
        in_order,
        all_segments,
        out,
        retry_failed,
        files,
        pages,
        embeddings,
        not only_embeddings,
    )
    client = client_flags(server, tls, ca, cert, key, server_name, token, token_file)
    with report_errors(as_json=as_json):
        settings = load_config(config, client=client)
        sources = find_videos(videos or (), list_file, recursive=recursive)
        single = [*files.single_files, *(pages.single_files if pages is not None else ())]
        if single and len(sources) > 1:
            raise typer.BadParameter(f"{single[0]} has room for one video; name a folder for {len(sources)}")
        status = asyncio.run(classify_all(sources, options, server, settings, output, jobs))
    raise typer.Exit(status)
