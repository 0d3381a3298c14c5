"""Draws a timeline of several videos at once, through upload, decoding and the engine.

    python -m tests.bench.trace ../shared/videos/real [--videos 8] [--megabytes 4] [--out trace.png]

Each video has a row: its upload at ``--megabytes`` MB/s, its decoding, and a dot for each segment that its
client gets. The last row is the device: batches of units and of windows of all videos. Where bars overlap,
time is gained. Where the device's row has gaps, it waits for decoders.
"""

import argparse
import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tubelet.service.config.config import Config
from tubelet.service.engine.stage_queue import PendingBatch, StageQueue
from tubelet.service.errors import TubeletError
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.pipeline import Pipeline
from tubelet.service.server.app import open_stages
from tubelet.service.types.request import Options, Sliding
from tubelet.service.types.result import Event, Segment
from tubelet.service.types.video import Stage

COLOURS = {
    "upload": "#bbbbbb",
    "queue": "#f5dfa8",
    "probe": "#7e57c2",
    "decode": "#4f8fd9",
    "encode": "#3aa655",
    "classify": "#e0662f",
}
_CHUNK_BYTES = 64 << 10
_WIDTH, _HEIGHT = 1200, 40  # of a row, pixels


@dataclass(frozen=True, slots=True)
class Span:
    stage: str
    start_s: float
    end_s: float


@dataclass(slots=True)
class Row:
    name: str
    spans: list[Span] = field(default_factory=list)
    segments_s: list[float] = field(default_factory=list)


_row: ContextVar[Row | None] = ContextVar("row", default=None)  # of the request that a task works for


class Traced(Metrics):
    """Metrics that record when each stage ran, and for which video."""

    def observe_stage(self, stage: Stage, model: str, seconds: float) -> None:
        super().observe_stage(stage, model, seconds)
        row, now = _row.get(), monotonic()
        if row is not None and stage in COLOURS:
            row.spans.append(Span(stage, now - seconds, now))


def trace_device(queue: StageQueue[Any, Any], row: Row) -> None:
    for device, run in queue.run_on.items():
        queue.run_on[device] = _traced(run, queue.stage, row)


def _traced(run: Callable[..., Any], stage: str, row: Row) -> Callable[..., Any]:
    def traced(items: Sequence[Any]) -> Any:
        start_s = monotonic()
        results = run(items)
        if isinstance(results, PendingBatch):
            results = results.wait()  # copies overlap no more, but when it ended is known
        row.spans.append(Span(stage, start_s, monotonic()))
        return results

    return traced


async def classify(pipeline: Pipeline, clip: Path, bytes_a_second: float, row: Row) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        start_s, sent = monotonic(), 0
        with clip.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                await asyncio.sleep(max(0.0, start_s + sent / bytes_a_second - monotonic()))
                sent += len(chunk)
                yield chunk

    async def emit(event: Event) -> None:
        if isinstance(event, Segment):
            row.segments_s.append(monotonic())

    _row.set(row)
    with suppress(TubeletError):
        await pipeline.classify(chunks(), pipeline.request(Options(windowing=Sliding())), emit)


async def record(clips: Sequence[Path], bytes_a_second: float) -> tuple[list[Row], float]:
    """Classify ``clips`` at once; return a row for each and one for the device, and the time of the start."""
    metrics, device = Traced(), Row("device")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("TUBELET_MODELS__STORE", folder)
        async with open_stages(Config(), metrics) as stages:
            served = stages.pipeline.registry.default
            await classify(stages.pipeline, clips[0], 1e9, Row(""))
            stages.pipeline.clear_cache()
            trace_device(served.encode, device)
            trace_device(served.classify, device)
            rows = [Row(clip.name) for clip in clips]
            start_s = monotonic()
            await asyncio.gather(
                *(
                    classify(stages.pipeline, clip, bytes_a_second, row)
                    for clip, row in zip(clips, rows, strict=True)
                )
            )
    return [*rows, device], start_s


def draw(rows: Sequence[Row], start_s: float) -> Image.Image:
    end_s = max(span.end_s for row in rows for span in row.spans) - start_s
    font = ImageFont.load_default(15)
    left = 20 + round(max(font.getlength(row.name) for row in rows))
    scale = _WIDTH / end_s
    picture = Image.new("RGB", (left + _WIDTH + 20, (len(rows) + 2) * _HEIGHT), "white")
    pen = ImageDraw.Draw(picture)

    def x(time_s: float) -> float:
        return left + (time_s - start_s) * scale

    place = left
    for stage, colour in COLOURS.items():
        pen.rectangle((place, 14, place + 14, 28), fill=colour)
        pen.text((place + 20, 12), stage, "black", font)
        place += 40 + round(font.getlength(stage))
    for number, row in enumerate(rows, 1):
        top = number * _HEIGHT
        pen.text((10, top + 10), row.name, "black", font)
        for span in row.spans:
            high, low = (2, 10) if span.stage == "upload" else (12, _HEIGHT - 8)
            box = (x(span.start_s), top + high, max(x(span.start_s) + 1, x(span.end_s)), top + low)
            pen.rectangle(box, fill=COLOURS[span.stage])
        for time_s in row.segments_s:
            middle = top + _HEIGHT // 2 + 2
            pen.ellipse((x(time_s) - 3, middle - 3, x(time_s) + 3, middle + 3), fill="black")
    bottom = (len(rows) + 1) * _HEIGHT
    step_s = next((step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10) if end_s / step <= 15), end_s / 15)
    for number in range(int(end_s / step_s) + 1):
        second = number * step_s
        pen.line((x(start_s + second), _HEIGHT, x(start_s + second), bottom), fill="#dddddd")
        pen.text((x(start_s + second) + 3, bottom + 4), f"{second:g} s", "black", font)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--megabytes", type=float, default=4.0, help="a second, of each upload")
    parser.add_argument("--out", type=Path, default=Path("trace.png"))
    arguments = parser.parse_args()
    found = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    clips = random.Random(0).sample(found, min(arguments.videos, len(found)))
    rows, start_s = asyncio.run(record(clips, arguments.megabytes * 1e6))
    draw(rows, start_s).save(arguments.out)
    device = rows[-1].spans
    busy_s = sum(span.end_s - span.start_s for span in device)
    wall_s = max(span.end_s for row in rows for span in row.spans) - start_s
    print(
        f"{len(clips)} videos in {wall_s:.2f} s, device busy for {busy_s / wall_s:.0%} of it: {arguments.out}"
    )


if __name__ == "__main__":
    main()
