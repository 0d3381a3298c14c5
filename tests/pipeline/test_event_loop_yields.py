"""Work on a video of a day yields to the event loop, so that other requests run."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from tests.support.sample_clip import panning_clip
from tubelet.service.config.config import load_config
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline import window_stream
from tubelet.service.pipeline.windows import QueuedUnit, StartedWindow, WindowStarter
from tubelet.service.rpc.servicer import fill_message
from tubelet.service.server.app import open_stages
from tubelet.service.types.plan import Plan
from tubelet.service.types.request import Options, Sliding
from tubelet.service.types.result import Classification, Event, Label, Segment, ignore_event
from tubelet.service.types.video import NS_PER_S, UnitFrames, VideoMetadata
from tubelet.service.wire.answer import classification_from_proto
from tubelet.v1 import classification_pb2

SEGMENTS = 1000
METADATA = VideoMetadata("matroska", "h264", 64, 48, 1.0, SEGMENTS, SEGMENTS * NS_PER_S, 1)


@contextmanager
def others() -> Iterator[list[int]]:
    """Count the runs of another task of the event loop until the context ends."""
    last = [0]

    async def take() -> None:
        for last[0] in count():
            await asyncio.sleep(0)

    taking = asyncio.create_task(take())
    yield last
    taking.cancel()


async def test_event_loop_runs_while_an_answer_is_written() -> None:
    labels = (Label("still", 0.5), Label("pan_left", 0.25))
    segments = tuple(Segment(at * NS_PER_S, (at + 1) * NS_PER_S, labels) for at in range(SEGMENTS))
    answer = Classification(METADATA, "camera-motion", "1.0.0", segments, labels, {"total": 1.0}, ())
    message = classification_pb2.Classification()
    with others() as turns:
        await fill_message(answer, message)
    assert turns[0] >= SEGMENTS / 100 - 1
    assert classification_from_proto(message) == answer


async def test_event_loop_runs_while_windows_become_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many logits are ready at once; here all units are cache hits."""
    monkeypatch.setattr(DecodeSession, "decode", decode_first)
    clip, at = panning_clip(4.0), list[int]()

    async def note(event: Event) -> None:
        if isinstance(event, Segment):
            at.append(turns[0])

    async with open_stages(load_config(None), Metrics()) as stages:
        options = Options(windowing=Sliding.of_seconds(1, 1), ranges_ns=((0, 4 * NS_PER_S),))
        await stages.pipeline.classify(chunks(clip), stages.pipeline.request(options), ignore_event)
        with others() as turns:
            await stages.pipeline.classify(chunks(clip), stages.pipeline.request(options), note)
    assert len(at) == 4
    assert len(set(at)) == len(at)


async def test_event_loop_runs_while_units_are_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many units the decoder has ready; here each one takes a whole yield interval."""
    monkeypatch.setattr(window_stream, "_YIELD_INTERVAL_S", 0.0)
    queue = WindowStarter.add
    at: list[int] = []

    def add(starter: WindowStarter, unit: QueuedUnit) -> StartedWindow | None:
        at.append(turns[0])
        return queue(starter, unit)

    monkeypatch.setattr(DecodeSession, "decode", decode_first)
    monkeypatch.setattr(WindowStarter, "add", add)
    async with open_stages(load_config(None), Metrics()) as stages:
        with others() as turns:
            request = stages.pipeline.request(Options())
            await stages.pipeline.classify(chunks(panning_clip(2.0)), request, ignore_event)
    assert len(at) > 1
    assert len(set(at)) == len(at)


_decode = DecodeSession.decode


async def decode_first(
    session: DecodeSession, plan: Plan, *args: Any, **how: Any
) -> AsyncIterator[UnitFrames]:
    """Yield the units of ``plan`` one right after another, once all are decoded."""
    units: list[UnitFrames] = []
    async for unit in _decode(session, plan, *args, **how):
        units.append(replace(unit, pixels=unit.pixels.copy(), release=lambda: None))
        unit.release()
    for unit in units:
        yield unit


async def chunks(clip: bytes) -> AsyncIterator[bytes]:
    yield clip
