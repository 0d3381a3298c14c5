"""What a worker may say, and what happens to one that says anything else."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.videos import SMALL, opened, render, whole
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.spawner import Spawner
from tubelet.service.decode.pool.worker_process import Death, WorkerProcess
from tubelet.service.decode.protocol import ProtocolError, Unpacker, pack
from tubelet.service.errors import DecoderCrashed
from tubelet.service.types.video import UnitFrames

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), _json, max_size=4), max_size=5), st.integers(1, 40))
def test_messages_arrive_whole_in_any_portions(messages: list[dict[str, object]], portion: int) -> None:
    data = b"".join(pack(message) for message in messages)
    unpacker = Unpacker()
    portions = [data[start : start + portion] for start in range(0, len(data), portion)]
    assert [message for part in portions for message in unpacker.feed(part)] == messages


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"[" * 60_000, b"1" * 60_000])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Unpacker(1 << 16).feed(struct.pack("!I", len(body)) + body))


def test_a_message_that_is_too_long_is_refused_before_it_has_come() -> None:
    with pytest.raises(ProtocolError):
        list(Unpacker(1 << 16).feed(struct.pack("!I", (1 << 16) + 1)))


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    spawner = Spawner(DecodeConfig(workers=1))
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
    "said",
    [
        {"says": "unit", "job": 1, "grid": 0, "unit": 100, "slot": 1},
        {"says": "unit", "job": 1, "grid": 0, "unit": 1, "slot": 1000},
        {"says": "unit", "job": 1, "grid": 0, "unit": 1, "slot": -1},
        {"says": "unit", "job": 1, "grid": 0, "unit": 1000, "slot": 1},
        {"says": "unit", "job": 1, "grid": 1, "unit": 0, "slot": 1},
        {"says": "unit", "job": 1, "grid": 0, "unit": 0, "slot": 1},
        {"says": "unit", "job": 1, "grid": 0, "unit": 1, "slot": 0},
        {"says": "unit", "job": 2, "grid": 0, "unit": 1, "slot": 1},
        {"says": "unit", "job": 1, "grid": 0, "unit": 1},
        {"says": "metadata", "job": 1, "metadata": _METADATA},
        {
            "says": "end",
            "job": 1,
            "end_ns": 5,
            "frames_decoded": 1,
            "warnings": [],
            "metadata": _METADATA,
            "max_frame_offset_ns": 0,
        },
        {"says": "end", "job": 1, "end_ns": "soon", "frames_decoded": 1, "warnings": []},
        {"says": "end", "job": 1, "end_ns": 1e999, "frames_decoded": 1, "warnings": []},
        {"says": "refused", "job": 1, "reason": "INTERNAL", "message": "", "metadata": {}},
        {"says": "refused", "job": 1, "reason": "CORRUPT_VIDEO", "message": "", "metadata": []},
        {"says": ["unit"], "job": 1},
        {"says": "ready", "job": 1},
        {"says": "need", "job": 1, "start": 5, "end": 5},
        {"says": "need", "job": 1, "start": -1, "end": 5},
        {"says": "need", "job": 1, "start": 0},
        {"says": "exhausted", "job": 1},
        {"job": 1},
    ],
    ids=lambda said: json.dumps(said)[:60],
)
async def test_a_worker_that_makes_no_sense_is_killed(
    spawner: Spawner, tmp_path: Path, said: dict[str, object]
) -> None:
    clip = render(tmp_path / "clip.mp4", 300)
    deaths: list[Death] = []
    process = WorkerProcess(spawner.config, lambda _, death: deaths.append(death))
    await process.start(spawner)
    with opened(clip) as file:
        process.decode(whole(await process.probe(file, from_front=False)), SMALL)
    await process.next_unit()  # unit 0 in slot 0 is ours now
    process.data_received(pack(said))
    assert not process.is_alive
    with pytest.raises(DecoderCrashed):
        await _until_it_ends(process)
    assert "status -9" in await process.gone()
    await asyncio.sleep(0)
    assert deaths == [Death.BROKEN]


async def test_one_that_dies_of_its_video_while_it_is_to_leave_it_alone_tells_nobody_but_the_pool(
    spawner: Spawner, clip: Path
) -> None:
    deaths: list[Death] = []
    process = WorkerProcess(spawner.config, lambda _, death: deaths.append(death))
    await process.start(spawner)
    with opened(clip) as file:
        await process.probe(file, from_front=False)
        leaving = asyncio.create_task(process.leave())
        await asyncio.sleep(0)  # it has been told so
        process.data_received(pack({"says": "exhausted", "job": 1, "detail": ""}))
        await leaving
    await process.gone()
    assert deaths == [Death.MEMORY]


async def test_one_whose_start_is_cancelled_as_it_gets_ready_dies_unnoticed(spawner: Spawner) -> None:
    class Hasty(WorkerProcess):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            starting.cancel()

    deaths: list[Death] = []
    process = Hasty(spawner.config, lambda _, death: deaths.append(death))
    starting = asyncio.create_task(process.start(spawner))
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not process.is_alive
    await asyncio.sleep(0)
    assert deaths == []


async def _until_it_ends(process: WorkerProcess) -> None:
    while isinstance(await process.next_unit(), UnitFrames):
        pass
