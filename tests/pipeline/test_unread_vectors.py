"""A client that reads its vectors slowly makes the decoding of its video wait."""

import asyncio
from functools import partial

import numpy as np
import pytest

from tests.pipeline.test_event_loop_yields import chunks, decode_first
from tests.support.sample_clip import panning_clip
from tubelet.service.config.config import load_config
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline import embeddings, window_stream
from tubelet.service.pipeline.unread_vectors import UnreadVectors
from tubelet.service.pipeline.windows import ClassifiedWindow, QueuedUnit, StartedWindow, WindowStarter
from tubelet.service.server.app import open_stages
from tubelet.service.types.embeddings import EmbeddingLevel, Embeddings
from tubelet.service.types.request import Options
from tubelet.service.types.result import Event, ignore_event


async def test_a_video_is_decoded_no_further_while_its_vectors_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DecodeSession, "decode", decode_first)
    monkeypatch.setattr(window_stream, "UnreadVectors", partial(UnreadVectors, max_bytes=1))
    monkeypatch.setattr(embeddings, "_PART_BYTES", 1)
    queue = WindowStarter.add
    units, units_at_first_part = list[int](), list[int]()

    def add(starter: WindowStarter, unit: QueuedUnit) -> StartedWindow | None:
        units.append(unit.unit)
        return queue(starter, unit)

    async def read_slowly(event: Event) -> None:
        if isinstance(event, Embeddings) and not units_at_first_part:
            # All units are decoded, and in the cache: nothing else keeps them from being queued.
            for _ in range(10_000):
                await asyncio.sleep(0)
            units_at_first_part.append(len(units))

    monkeypatch.setattr(window_stream, "_YIELD_INTERVAL_S", 0.0)
    clip, options = panning_clip(8.0), Options(embeddings=EmbeddingLevel.UNIT, only_embeddings=True)
    async with open_stages(load_config(None), Metrics()) as stages:
        await stages.pipeline.classify(chunks(clip), stages.pipeline.request(options), ignore_event)
        monkeypatch.setattr(WindowStarter, "add", add)
        await stages.pipeline.classify(chunks(clip), stages.pipeline.request(options), read_slowly)
    assert units == list(range(16))
    assert units_at_first_part[0] < 16


async def test_there_is_room_once_vectors_are_read() -> None:
    unread = UnreadVectors(max_bytes=100)

    async def compute(size: int) -> ClassifiedWindow:
        return ClassifiedWindow(0, 0, 0, None, range(0), (np.zeros(size, np.uint8),))

    windows = [asyncio.create_task(compute(60)) for _ in range(3)]
    for window in windows:
        unread.watch(window)
    await asyncio.wait(windows)
    await asyncio.sleep(0)
    waiting = asyncio.create_task(unread.wait_for_room())
    unread.take(windows[0])
    await asyncio.sleep(0)
    assert not waiting.done()
    unread.take(windows[1])
    await waiting


async def test_failed_windows_hold_nothing_back() -> None:
    unread = UnreadVectors(max_bytes=0)

    async def fail() -> ClassifiedWindow:
        raise ValueError("a bad batch")

    windows = [asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(100))]
    for window in windows:
        unread.watch(window)  # pyright: ignore[reportArgumentType]
    windows[1].cancel()
    await asyncio.wait(windows)
    await asyncio.sleep(0)
    await unread.wait_for_room()
