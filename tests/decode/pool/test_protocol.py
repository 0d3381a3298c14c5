"""The protocol between pool and worker: its framing, and what happens to a worker that violates it."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.videos import open_file, plan_whole_video, render
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.pool.spawner import Spawner
from tubelet.service.decode.pool.worker_process import WorkerFailure, WorkerProcess
from tubelet.service.decode.protocol import ProtocolError, Unpacker, pack
from tubelet.service.errors import DecoderCrashed
from tubelet.service.types.video import PixelFormat, UnitFrames

_LARGE = PixelFormat(256, 256, "stretch")  # a unit of 2 frames is 384 KiB: two slots in 1 MiB
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), _json, max_size=4), max_size=5), st.integers(1, 40))
def test_messages_survive_any_split_of_the_stream(messages: list[dict[str, object]], portion: int) -> None:
    data = b"".join(pack(message) for message in messages)
    unpacker = Unpacker()
    portions = [data[start : start + portion] for start in range(0, len(data), portion)]
    assert [message for part in portions for message in unpacker.feed(part)] == messages


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"[" * 60_000, b"1" * 60_000])
def test_invalid_message_is_rejected(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Unpacker(1 << 16).feed(struct.pack("!I", len(body)) + body))


def test_oversized_message_is_rejected_by_its_length() -> None:
    with pytest.raises(ProtocolError):
        list(Unpacker(1 << 16).feed(struct.pack("!I", (1 << 16) + 1)))


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    spawner = Spawner(DecodeConfig(workers=1, shared_memory_bytes=MIB))
    await spawner.start()
    yield spawner
    await spawner.stop()


_METADATA = {
    "container": "mov",
    "codec": "h264",
    "width": 2,
    "height": 2,
    "fps": 1,
    "frames": 1,
    "duration_ns": 1,
    "size_bytes": 1,
    "warnings": [],
}


@pytest.mark.parametrize(
    "message",
    [
        {"type": "unit", "session": 1, "grid": 0, "unit": 100, "slot": 1},
        {"type": "unit", "session": 1, "grid": 0, "unit": 1, "slot": 1000},
        {"type": "unit", "session": 1, "grid": 0, "unit": 1, "slot": -1},
        {"type": "unit", "session": 1, "grid": 0, "unit": 1000, "slot": 1},
        {"type": "unit", "session": 1, "grid": 1, "unit": 0, "slot": 1},
        {"type": "unit", "session": 1, "grid": 0, "unit": 0, "slot": 1},
        {"type": "unit", "session": 1, "grid": 0, "unit": 1, "slot": 0},
        {"type": "unit", "session": 2, "grid": 0, "unit": 1, "slot": 1},
        {"type": "unit", "session": 1, "grid": 0, "unit": 1},
        {"type": "probed", "session": 1, "metadata": _METADATA},
        {
            "type": "end",
            "session": 1,
            "end_ns": 5,
            "frames_decoded": 1,
            "warnings": [],
            "metadata": _METADATA,
            "max_frame_offset_ns": 0,
        },
        {"type": "end", "session": 1, "end_ns": "soon", "frames_decoded": 1, "warnings": []},
        {"type": "end", "session": 1, "end_ns": 1e999, "frames_decoded": 1, "warnings": []},
        {"type": "rejected", "session": 1, "reason": "INTERNAL", "message": "", "metadata": {}},
        {"type": "rejected", "session": 1, "reason": "CORRUPT_VIDEO", "message": "", "metadata": []},
        {"type": ["unit"], "session": 1},
        {"type": "ready", "session": 1},
        {"type": "bytes_needed", "session": 1, "start": 5, "end": 5},
        {"type": "bytes_needed", "session": 1, "start": -1, "end": 5},
        {"type": "bytes_needed", "session": 1, "start": 0},
        {"type": "out_of_memory", "session": 1},
        {"session": 1},
    ],
    ids=lambda message: json.dumps(message)[:60],
)
async def test_worker_that_violates_the_protocol_is_killed(
    spawner: Spawner, tmp_path: Path, message: dict[str, object]
) -> None:
    """The worker waits for a free slot meanwhile: it cannot reach the end of the video."""
    clip = render(tmp_path / "clip.mp4", 300)
    failures: list[WorkerFailure] = []
    process = WorkerProcess(spawner.config, lambda _, failure: failures.append(failure))
    await process.start(spawner)
    with open_file(clip) as file:
        process.decode(plan_whole_video(await process.probe(file, header_only=False)), _LARGE)
    await process.next_unit()  # unit 0 in slot 0 is lent now
    process.data_received(pack(message))
    assert not process.is_alive
    with pytest.raises(DecoderCrashed):
        await _read_until_the_end(process)
    assert "status -9" in await process.wait_until_exited()
    await asyncio.sleep(0)
    assert failures == [WorkerFailure.PROTOCOL_ERROR]


async def test_worker_failure_during_a_stop_is_reported_to_the_pool_only(
    spawner: Spawner, clip: Path
) -> None:
    failures: list[WorkerFailure] = []
    process = WorkerProcess(spawner.config, lambda _, failure: failures.append(failure))
    await process.start(spawner)
    with open_file(clip) as file:
        await process.probe(file, header_only=False)
        ending = asyncio.create_task(process.end_session())
        await asyncio.sleep(0)  # the stop has been sent
        process.data_received(pack({"type": "out_of_memory", "session": 1, "detail": ""}))
        await ending
    await process.wait_until_exited()
    assert failures == [WorkerFailure.OOM]


async def test_worker_whose_start_is_cancelled_is_killed_without_a_failure(spawner: Spawner) -> None:
    class CancelledWhenReady(WorkerProcess):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            starting.cancel()

    failures: list[WorkerFailure] = []
    process = CancelledWhenReady(spawner.config, lambda _, failure: failures.append(failure))
    starting = asyncio.create_task(process.start(spawner))
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not process.is_alive
    await asyncio.sleep(0)
    assert failures == []


async def _read_until_the_end(process: WorkerProcess) -> None:
    while isinstance(await process.next_unit(), UnitFrames):
        pass
