"""One worker process: what it may send in which state, and what happens if it violates the protocol."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.support.decode_messages import METADATA, RESPONSES, frame
from tests.support.preprocessing import preprocessing
from tests.support.videos import open_file, plan_whole_video, render
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.pool.spawner import Spawner
from tubelet.service.decode.pool.worker_process import WorkerProcess
from tubelet.service.decode.pool.worker_state import WorkerFailure
from tubelet.service.decode.protocol import (
    BytesNeeded,
    End,
    Failed,
    Heartbeat,
    OutOfMemory,
    Probed,
    Ready,
    Response,
    Stopped,
    Unit,
    pack,
)
from tubelet.service.errors import DecoderCrashed
from tubelet.service.types.video import DecodeSummary, Thumbnail, UnitFrames

_LARGE = preprocessing(256, 256, "stretch")  # a unit of 2 frames is 384 KiB: two slots in 1 MiB


class Observer:
    """An observer that records failures."""

    def __init__(self) -> None:
        self.failures: list[WorkerFailure] = []

    def worker_failed(self, process: WorkerProcess, failure: WorkerFailure) -> None:
        self.failures.append(failure)

    def worker_waits_for_upload(self) -> None:
        pass

    def work_changed(self, change: int) -> None:
        pass


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    spawner = Spawner(DecodeConfig(workers=1, shared_memory_bytes=MIB))
    await spawner.start()
    yield spawner
    await spawner.stop()


@pytest.mark.parametrize(
    ("session_id", "content"),
    [
        (1, Unit(0, 100, 1)),
        (1, Unit(0, 1, 1000)),
        (1, Unit(0, 1, -1)),
        (1, Unit(0, 1000, 1)),
        (1, Unit(0, 10**400, 1)),
        (1, Unit(1, 0, 1)),
        (1, Unit(0, 0, 1)),
        (1, Unit(0, 1, 0)),
        (2, Unit(0, 1, 1)),
        (1, Probed(METADATA, knows_key_frames=True)),
        (1, Ready(())),
        (1, Stopped()),
        (1, End(DecodeSummary(5, 1, (), METADATA))),
        (1, End(DecodeSummary(0, 1, (), METADATA, thumbnails=(Thumbnail(0, 1, 1, b""),)))),
        (1, BytesNeeded(5, 5)),
        (1, BytesNeeded(-1, 5)),
        (1, {"type": "unit", "grid": 0, "unit": 1}),
        (1, {"type": "unit", "grid": 0, "unit": 1, "slot": "1"}),
        (1, {"type": "unit", "grid": 0, "unit": 1, "slot": True}),
        (1, {"type": "unit", "grid": 0, "unit": 1, "slot": math.nan}),
        (1, {"type": "end", "summary": {"end_ns": 1e999, "frames_decoded": 1, "warnings": []}}),
        (1, {"type": "out_of_memory"}),
        (1, {}),
        (1, []),
        (1, None),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_worker_that_violates_the_protocol_is_killed(
    spawner: Spawner, tmp_path: Path, session_id: int, content: Any
) -> None:
    """The worker waits for a free slot meanwhile: it cannot reach the end of the video."""
    clip = render(tmp_path / "clip.mp4", 300)
    observer = Observer()
    process = WorkerProcess(spawner.config, observer)
    await process.start(spawner)
    with open_file(clip) as file:
        process.decode(plan_whole_video(await process.probe(file, header_only=False)), _LARGE)
    await process.next_unit()  # unit 0 in slot 0 is lent now
    is_valid = isinstance(content, get_args(Response))
    process.data_received(
        pack(session_id, content) if is_valid else frame(json.dumps([session_id, content]).encode())
    )
    assert not process.is_alive
    with pytest.raises(DecoderCrashed):
        await _read_until_the_end(process)
    assert "status -9" in await process.wait_until_exited()
    await asyncio.sleep(0)
    assert observer.failures == [WorkerFailure.PROTOCOL_ERROR]


@pytest.mark.parametrize(
    "response",
    [each for each in RESPONSES if not isinstance(each, Heartbeat | Failed | OutOfMemory)],
    ids=lambda response: response.type,
)
async def test_worker_without_a_video_that_sends_a_response_is_killed(
    spawner: Spawner, response: Response
) -> None:
    observer = Observer()
    process = WorkerProcess(spawner.config, observer)
    await process.start(spawner)
    process.data_received(pack(0, response))
    assert not process.is_alive
    await process.wait_until_exited()
    await asyncio.sleep(0)
    assert observer.failures == [WorkerFailure.PROTOCOL_ERROR]


async def test_messages_sent_before_a_stop_arrives_are_ignored(spawner: Spawner, clip: Path) -> None:
    observer = Observer()
    process = WorkerProcess(spawner.config, observer)
    await process.start(spawner)
    for session_id in (1, 2):
        with open_file(clip) as file:
            await process.probe(file, header_only=False)
            ending = asyncio.create_task(process.end_session())
            await asyncio.sleep(0)  # the stop has been sent
            for response in RESPONSES:
                if not isinstance(response, Stopped | OutOfMemory):
                    process.data_received(pack(session_id, response))
            await ending
    assert process.is_alive
    process.kill()
    await process.wait_until_exited()
    assert observer.failures == []


async def test_worker_failure_during_a_stop_is_reported_to_the_pool_only(
    spawner: Spawner, clip: Path
) -> None:
    observer = Observer()
    process = WorkerProcess(spawner.config, observer)
    await process.start(spawner)
    with open_file(clip) as file:
        await process.probe(file, header_only=False)
        ending = asyncio.create_task(process.end_session())
        await asyncio.sleep(0)  # the stop has been sent
        process.data_received(pack(1, OutOfMemory("")))
        await ending
    await process.wait_until_exited()
    assert observer.failures == [WorkerFailure.OOM]


async def test_worker_whose_start_is_cancelled_is_killed_without_a_failure(spawner: Spawner) -> None:
    class CancelledWhenReady(WorkerProcess):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            starting.cancel()

    observer = Observer()
    process = CancelledWhenReady(spawner.config, observer)
    starting = asyncio.create_task(process.start(spawner))
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not process.is_alive
    await asyncio.sleep(0)
    assert observer.failures == []


async def _read_until_the_end(process: WorkerProcess) -> None:
    while isinstance(await process.next_unit(), UnitFrames):
        pass
