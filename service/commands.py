"""What ``classify`` and ``models list`` do: ask, and print answers as they come."""

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from service.ask import Event, Failure, ask_all, asking_here, asking_server
from service.client import AsyncClient
from service.config import Config
from service.show import answer_json, answer_text
from service.values import NS_PER_S, Options, VideoFacts
from service.values import Progress as DecodeProgress

_VIDEOS_AT_ONCE = 4


async def classify_all(
    videos: list[Path], options: Options, server: str | None, config: Config, *, as_json: bool
) -> bool:
    """Print an answer for each video, in order; True if one of them failed."""
    failed = False
    errors = Console(stderr=True, quiet=as_json)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.1f} of {task.total:.1f} s"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )
    bars: dict[Path, TaskID] = {}

    def show(video: Path, event: Event) -> None:
        match event:
            case VideoFacts():
                bars[video] = progress.add_task(video.name, total=event.duration_ns / NS_PER_S)
            case DecodeProgress(decoded_s, total_s):
                progress.update(bars[video], completed=decoded_s, total=total_s)

    out = Console(soft_wrap=True, highlight=False, markup=False)
    async with AsyncExitStack() as stack:
        with errors.status("connecting" if server else "loading models, starting decode workers"):
            ask = await stack.enter_async_context(asking_server(server) if server else asking_here(config))
        stack.enter_context(progress)
        async for video, answer in ask_all(ask, videos, options, _VIDEOS_AT_ONCE, show):
            if video in bars:
                progress.remove_task(bars.pop(video))
            failed |= isinstance(answer, Failure)
            if as_json:
                print(json.dumps(answer_json(video, answer)), flush=True)
            else:
                out.print(answer_text(video, answer))
    return failed


async def print_models(server: str | None, config: Config, *, as_json: bool) -> None:
    """
    Raises:
        service.client.ServerError: the server cannot be asked.
        models.store.BrokenModel: the store cannot be read.
    """
    rows = await _server_models(server) if server else _store_models(config)
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table("model", "version", "family", "labels", "size", "licence", "accuracy", box=None)
    for row in rows:
        accuracy = ", ".join(f"{figure['top1']:.3f} {figure['dataset']}" for figure in row["accuracy"])
        table.add_row(
            row["model"] + (" (default)" if row["default"] else ""),
            row["version"],
            row["family"],
            str(len(row["labels"])),
            row["size"],
            row["licence"],
            accuracy,
        )
    Console().print(table)


async def _server_models(server: str) -> list[dict[str, Any]]:
    async with AsyncClient(server) as client:
        return [
            {
                "model": model.name,
                "version": model.version,
                "family": model.family,
                "labels": list(model.labels),
                "size": f"{model.width}x{model.height}",
                "licence": model.licence,
                "accuracy": [{"dataset": each.dataset, "top1": each.top1} for each in model.accuracy],
                "default": model.is_default,
            }
            for model in await client.models()
        ]


def _store_models(config: Config) -> list[dict[str, Any]]:
    from models.store import ModelStore

    return [
        {
            "model": spec.name,
            "version": spec.version,
            "family": spec.family,
            "labels": list(spec.labels),
            "size": f"{spec.preprocessing.width}x{spec.preprocessing.height}",
            "licence": spec.licence,
            "accuracy": [{"dataset": each.dataset, "top1": each.top1} for each in spec.accuracy],
            "default": spec.name == config.models.default,
        }
        for spec in ModelStore(config.models.store).specs()
    ]
