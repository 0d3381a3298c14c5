"""What ``classify`` does: ask, and print answers as they come."""

import json
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from service.ask import Event, Failure, ask_all, asking_here, asking_server
from service.config import Config
from service.live_region import LiveRegion
from service.show import answer_json, answer_text
from service.values import NS_PER_S, Classification, Options, VideoFacts
from service.values import Progress as DecodeProgress

_VIDEOS_AT_ONCE = 4


async def classify_all(
    videos: list[str], options: Options, server: str | None, config: Config, *, as_json: bool
) -> bool:
    """Print an answer for each video, in order; True if one of them failed.

    Answers go to standard output; progress and what failed, to standard error.
    """
    failed = False
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.1f} of {task.total:.1f} s"),
        TimeRemainingColumn(),
        console=errors,
    )
    region = LiveRegion(errors, progress.get_renderable)
    bars: dict[int, TaskID] = {}

    def show(number: int, event: Event) -> None:
        match event:
            case VideoFacts():
                name = Path(videos[number]).name
                bars[number] = progress.add_task(name, total=event.duration_ns / NS_PER_S)
            case DecodeProgress(decoded_s, total_s):
                progress.update(bars[number], completed=decoded_s, total=total_s)

    out = Console(soft_wrap=True, highlight=False, markup=False)
    async with AsyncExitStack() as stack:
        with errors.status("connecting" if server else "loading models, starting decode workers"):
            asking = asking_server(server) if server else asking_here(config, options.model, options.version)
            ask = await stack.enter_async_context(asking)
        await stack.enter_async_context(region.shown())
        async for number, answer in ask_all(ask, videos, options, _VIDEOS_AT_ONCE, show):
            if number in bars:
                progress.remove_task(bars.pop(number))
            failed |= isinstance(answer, Failure)
            with region.lifted():
                if isinstance(answer, Failure):
                    errors.print(answer_text(videos[number], answer))
                if as_json:
                    print(json.dumps(answer_json(videos[number], answer)), flush=True)
                elif isinstance(answer, Classification):
                    out.print(answer_text(videos[number], answer))
    return failed
