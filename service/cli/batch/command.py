"""The arguments of ``tubelet batch``."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from tubelet.service.cli.errors import report_errors
from tubelet.service.cli.help import OPTIONAL_ADDRESS
from tubelet.service.cli.options import (
    Clips,
    ConfigFile,
    Crops,
    Fast,
    Json,
    ModelOption,
    ModelVersion,
    Stride,
    Threshold,
    TopK,
    WholeVideoOption,
    Window,
    model_ref,
    windowing,
)
from tubelet.service.config.config import Config, load_config

_OTHER_FORMATS = (".parquet", ".json", ".jsonl")  # that --export does not write


def batch(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A folder of videos, a glob in quotes, a prefix s3:// or gs://, or a manifest: .parquet, "
            ".csv or .jsonl with uri, and perhaps id, ranges and etag."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DEST", help="Folder, s3:// or gs:// URI for the tables videos and segments."),
    ] = None,
    listed: Annotated[
        str | None, typer.Option("--list", metavar="DEST", help="Print what is committed in DEST, and exit.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="With --list: write all segments to this table instead."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue DEST: leave out the videos that have rows.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: classify videos again that failed before.")
    ] = False,
    add_model: Annotated[
        bool, typer.Option("--add-model", help="Write beside the rows of other models or options in DEST.")
    ] = False,
    part_format: Annotated[
        Literal["parquet", "jsonl", "csv"],
        typer.Option("--format", metavar="parquet|jsonl|csv", help="Format of the rows."),
    ] = "parquet",
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Classify part I, from 0, of N parts; all write to one DEST, at any time."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Classify at most N videos in this run.")
    ] = None,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="Take the videos in a random order, as with --limit.")
    ] = False,
    seed: Annotated[
        int, typer.Option(metavar="N", help="With --shuffle: the order; the same N, the same order.")
    ] = 0,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Videos to classify at the same time.")] = 16,
    ray: Annotated[
        str | None,
        typer.Option(
            OPTIONAL_ADDRESS,
            metavar="[ADDRESS]",
            help="Classify on a Ray cluster: of HOST:PORT, or without it of RAY_ADDRESS or this machine.",
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="With --ray: most actors, of --jobs videos each; as many as have room."
        ),
    ] = None,
    actor_cpus: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="With --ray: CPUs of an actor; those of a node, or its share of a GPU."
        ),
    ] = None,
    commit_every: Annotated[
        float,
        typer.Option(min=1, max=3600, metavar="SECONDS", help="Longest time until rows are safe in DEST."),
    ] = 60.0,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Serve /metrics for Prometheus; 0 picks a free port."
        ),
    ] = None,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Add a vector to each segment.")] = False,
    model: ModelOption = "",
    version: ModelVersion = "",
    top_k: TopK = 5,
    threshold: Threshold = 0.0,
    whole_video: WholeVideoOption = False,
    window: Window = None,
    stride: Stride = None,
    clips: Clips = None,
    crops: Crops = None,
    fast: Fast = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Classify many videos into tables of rows, each video exactly once, however often it is interrupted.

    Videos that fail are rows, too. The exit status is 0 once every video has its row.
    """
    from tubelet.service.types.request import Options

    if listed is not None:
        if source is not None or out is not None:
            raise typer.BadParameter("--list DEST takes neither SOURCE nor --out")
        if export is not None and export.suffix.lower() in _OTHER_FORMATS:
            raise typer.BadParameter(f"--export writes a CSV; found {export}: name a file .csv")
        with report_errors(as_json=as_json):
            _print_list(listed, export, load_config(config), as_json=as_json)
        return
    if export is not None:
        raise typer.BadParameter("--export needs --list")
    if source is None or out is None:
        raise typer.BadParameter("name SOURCE, the videos, and --out DEST, where their rows go")
    if retry_failed and not resume:
        raise typer.BadParameter("--retry-failed needs --resume")
    if ray is None and (actors is not None or actor_cpus is not None):
        raise typer.BadParameter("--actors and --actor-cpus need --ray")
    windows = windowing(window, stride, clips, crops, whole_video=whole_video)
    ref = model_ref(model, version)
    options = Options(
        ref.name, ref.version, top_k=top_k, score_threshold=threshold, windowing=windows, fast=fast
    )
    with report_errors(as_json=as_json):
        from tubelet.service.batch.destination.layout import Layout
        from tubelet.service.batch.plan import make_plan
        from tubelet.service.cli.batch.batch import parse_shard, run
        from tubelet.service.cli.batch.work import BatchOptions, RayOptions

        settings = load_config(config)
        part = parse_shard(shard)
        asked = BatchOptions(
            Layout(part.count, part_format),
            part,
            may_add=add_model,
            may_resume=resume,
            retry_failed=retry_failed,
            limit=limit,
            seed=seed if shuffle else None,
            jobs=jobs,
            commit_every_s=commit_every,
            metrics_port=metrics_port,
            ray=None if ray is None else RayOptions(ray, actors, actor_cpus),
            as_json=as_json,
        )
        plan = make_plan(options, settings, embeddings=embeddings)
        status = asyncio.run(run(source, out, plan, asked, settings))
    raise typer.Exit(status)


def _print_list(dest: str, export: Path | None, config: Config, *, as_json: bool) -> None:
    """Print what is committed in ``dest``, or write its segments to the file ``export``."""
    from tubelet.service.batch.destination.store import open_store
    from tubelet.service.cli.batch.export import export_segments
    from tubelet.service.cli.batch.listing import print_commits

    store = open_store(dest, config.fetch)
    if export is None:
        print_commits(store, as_json=as_json)
    else:
        videos = export_segments(store, export)
        print(
            json.dumps({"file": str(export), "videos": videos})
            if as_json
            else f"{videos} videos are in {export}"
        )
