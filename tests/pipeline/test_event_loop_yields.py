"""Work on a video of a day yields to the event loop, so that other requests run."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import pytest

from tests.support.sample_clip import panning_clip
from tubelet.models.repository.repository import ModelStore
from tubelet.service.config.config import load_config
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline import pipeline
from tubelet.service.pipeline.pipeline import emit_segments
from tubelet.service.pipeline.planner import make_plan
from tubelet.service.pipeline.windows import (
    DecodingEnded,
    DecodingEvents,
    Planned,
    StartedWindow,
    WindowStarter,
)
from tubelet.service.rpc.servicer import fill_message
from tubelet.service.server.app import open_stages
from tubelet.service.types.plan import Plan
from tubelet.service.types.request import Options
from tubelet.service.types.result import Classification, Event, Label, Segment
from tubelet.service.types.video import NS_PER_S, DecodeSummary, UnitFrames, VideoMetadata
from tubelet.service.wire.convert import classification_from_proto
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


async def test_event_loop_runs_while_windows_become_segments() -> None:
    """All windows are ready from the start, as if every unit were a cache hit."""
    spec = ModelStore().find("camera-motion").spec
    model = ServedModel(spec, (), precision="fp32", max_batch_units=1, max_batch_windows=1)
    plan = make_plan(METADATA, spec.sampling, Options())

    async def logits() -> np.ndarray:
        return np.zeros(len(spec.labels))

    async def nothing() -> None:
        pass

    async def ignore(_: Event) -> None:
        pass

    known, decoding = asyncio.create_task(logits()), asyncio.create_task(nothing())
    await asyncio.wait((known, decoding))
    windows = range(plan.grids[0].num_windows)
    events: DecodingEvents = asyncio.Queue()
    events.put_nowait(Planned(METADATA, plan))
    for window in windows:
        events.put_nowait(StartedWindow(0, window, 0, known))
    events.put_nowait(DecodingEnded(plan, DecodeSummary(METADATA.duration_ns, SEGMENTS, (), METADATA)))
    events.put_nowait(None)
    with others() as turns:
        _, _, segments = await emit_segments(events, decoding, Options(), ignore, model)
    assert segments[-1].end_ns == METADATA.duration_ns
    assert turns[0] >= len(windows) - 1


async def test_event_loop_runs_while_units_are_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many units the decoder has ready; here each one takes a whole yield interval."""
    monkeypatch.setattr(pipeline, "_YIELD_INTERVAL_S", 0.0)
    decode, queue = DecodeSession.decode, WindowStarter.add
    at: list[int] = []

    async def decode_first(session: DecodeSession, plan: Plan, **how: Any) -> AsyncIterator[UnitFrames]:
        for unit in [unit async for unit in decode(session, plan, **how)]:
            yield unit

    def add(starter: WindowStarter, unit: UnitFrames) -> None:
        at.append(turns[0])
        queue(starter, unit)

    async def chunks() -> AsyncIterator[bytes]:
        yield panning_clip(2.0)

    async def ignore(_: Event) -> None:
        pass

    monkeypatch.setattr(DecodeSession, "decode", decode_first)
    monkeypatch.setattr(WindowStarter, "add", add)
    async with open_stages(load_config(None), Metrics()) as stages:
        with others() as turns:
            await stages.pipeline.classify(chunks(), stages.pipeline.request(Options()), ignore)
    assert len(at) > 1
    assert len(set(at)) == len(at)
