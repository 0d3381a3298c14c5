"""The protocol between pool and worker: its framing, and what happens to a worker that violates it."""

import asyncio
import json
import math
import struct
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.videos import open_file, plan_whole_video, render
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.pool.responses import parse_response
from tubelet.service.decode.pool.spawner import Spawner
from tubelet.service.decode.pool.worker_process import WorkerFailure, WorkerProcess
from tubelet.service.decode.protocol import (
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    BytesAvailable,
    BytesNeeded,
    Decode,
    End,
    Failed,
    FileMoved,
    Heartbeat,
    OutOfMemory,
    Probe,
    Probed,
    ProtocolError,
    Ready,
    Rejected,
    Release,
    Request,
    Response,
    Stop,
    Stopped,
    Unit,
    Unpacker,
    pack,
    parse_request,
)
from tubelet.service.errors import DecoderCrashed
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import DecodeSummary, PixelFormat, Protection, UnitFrames, VideoMetadata

_LARGE = PixelFormat(256, 256, "stretch")  # a unit of 2 frames is 384 KiB: two slots in 1 MiB
_LENGTH = struct.Struct("!I")
_METADATA = VideoMetadata("mov", "h264", 2, 2, 29.97, 1, 1, 1, ("odd",))
_RESPONSES = [
    Ready((Protection.RLIMITS, Protection.SECCOMP)),
    Heartbeat(),
    BytesNeeded(0, 5),
    Probed(_METADATA),
    Rejected("CORRUPT_VIDEO", "broken", None, None),
    Rejected("VIDEO_TOO_LARGE", "too long", 5, 7.5),
    Unit(0, 1, 2),
    End(DecodeSummary(5, 1, ("odd",), _METADATA, 3)),
    Stopped(),
    OutOfMemory("no memory"),
    Failed("a bug"),
]
_GRID = SamplingGrid(0, 4, 2, 2, 1, 1, one_segment=True, view_ns=1, crop="end", frame_offset_ns=0)
_REQUESTS = [
    Probe(True, None, False),
    Decode(1, 2, Plan((_GRID,), is_unbounded=True), _LARGE, False),
    Release(1, 2),
    BytesAvailable(0, 5, 9),
    FileMoved(),
    Stop(),
]
_numbers = st.integers() | st.floats()
_json = st.recursive(
    st.none() | st.booleans() | _numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 40))
def test_messages_survive_any_split_of_the_stream(messages: list[bytes], portion: int) -> None:
    data = b"".join(_frame(message) for message in messages)
    unpacker = Unpacker(50)
    portions = [data[start : start + portion] for start in range(0, len(data), portion)]
    assert [message for part in portions for message in unpacker.feed(part)] == messages


def test_oversized_message_is_rejected_by_its_length() -> None:
    with pytest.raises(ProtocolError):
        list(Unpacker(1 << 16).feed(_LENGTH.pack((1 << 16) + 1)))


@pytest.mark.parametrize("request_", _REQUESTS, ids=lambda request: request.type)
def test_requests_survive_their_encoding(request_: Request) -> None:
    (body,) = Unpacker(MAX_REQUEST_BYTES).feed(pack(7, request_))
    assert parse_request(body) == (7, request_)


@pytest.mark.parametrize("response", _RESPONSES, ids=lambda response: response.type)
def test_responses_survive_their_encoding(response: Response) -> None:
    (body,) = Unpacker(MAX_RESPONSE_BYTES).feed(pack(7, response))
    assert parse_response(body) == (7, response)


def test_every_type_of_message_is_tested() -> None:
    assert {type(each) for each in _REQUESTS} == set(get_args(Request))
    assert {type(each) for each in _RESPONSES} == set(get_args(Response))


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b"\xff",
        b"[" * 60_000,
        b"1" * 60_000,
        b"[7]",
        b'[7, {"type": "stopped"}, 1]',
        b'{"session": 7, "type": "stopped"}',
        b'["7", {"type": "stopped"}]',
        b'[7.0, {"type": "stopped"}]',
        b'[true, {"type": "stopped"}]',
        b"[7, {}]",
        b'[7, {"type": ["unit"]}]',
        b'[7, {"type": "decode"}]',
        b'[7, {"type": "ready", "protections": ["prayer"]}]',
        b'[7, {"type": "ready", "protections": "seccomp"}]',
        b'[7, {"type": "rejected", "reason": "INTERNAL", "message": "", "limit": 1, "value": 1}]',
        b'[7, {"type": "rejected", "reason": "CORRUPT_VIDEO", "message": "", "limit": "1", "value": 1}]',
        b'[7, {"type": "rejected", "reason": "CORRUPT_VIDEO", "message": "", "limit": NaN, "value": 1}]',
        b'[7, {"type": "rejected", "reason": "CORRUPT_VIDEO", "message": "\\ud800", "limit": 1, "value": 1}]',
        b'[7, {"type": "failed", "detail": "%s"}]' % (b"x" * 501),
    ],
    ids=lambda body: body[:60],
)
def test_invalid_message_is_rejected(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_response(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("width", 1 << 31),
        ("height", -1),
        ("height", 2.0),
        ("height", "2"),
        ("fps", math.nan),
        ("fps", math.inf),
        ("fps", "1"),
        ("frames", -1),
        ("frames", 10**400),
        ("frames", True),
        ("frames", None),
        ("duration_ns", 1 << 63),
        ("size_bytes", 1e3),
        ("codec", 5),
        ("codec", "x" * 501),
        ("warnings", "odd"),
        ("warnings", [["odd"]]),
        ("warnings", ["x" * 501]),
        ("more", 1),
    ],
)
def test_invalid_metadata_is_rejected(field: str, value: object) -> None:
    for content in (
        {"type": "probed", "metadata": {**asdict(_METADATA), field: value}},
        {
            "type": "end",
            "summary": {
                "end_ns": 5,
                "frames_decoded": 1,
                "warnings": [],
                "metadata": {**asdict(_METADATA), field: value},
            },
        },
    ):
        with pytest.raises(ProtocolError):
            parse_response(json.dumps([7, content]).encode())


@pytest.mark.parametrize("response", _RESPONSES, ids=lambda response: response.type)
def test_missing_and_extra_fields_are_rejected(response: Response) -> None:
    content = asdict(response)
    for changed in (
        {**content, "more": 1},
        *({key: content[key] for key in content if key != missing} for missing in content),
    ):
        with pytest.raises(ProtocolError):
            parse_response(json.dumps([7, changed]).encode())


@given(response=st.sampled_from(_RESPONSES), number=st.integers(0, 9), value=_json)
def test_any_value_of_a_field_is_accepted_as_its_type_or_rejected(
    response: Response, number: int, value: object
) -> None:
    content = asdict(response)
    content[list(content)[number % len(content)]] = value
    try:
        _, parsed = parse_response(json.dumps([7, content]).encode())
    except ProtocolError:
        return
    assert type(parsed) is type(response) or content["type"] != response.type
    assert pack(7, parsed)


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
        (1, Probed(_METADATA)),
        (1, Ready(())),
        (1, Stopped()),
        (1, End(DecodeSummary(5, 1, (), _METADATA))),
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
    failures: list[WorkerFailure] = []
    process = WorkerProcess(spawner.config, lambda _, failure: failures.append(failure))
    await process.start(spawner)
    with open_file(clip) as file:
        process.decode(plan_whole_video(await process.probe(file, header_only=False)), _LARGE)
    await process.next_unit()  # unit 0 in slot 0 is lent now
    is_valid = isinstance(content, get_args(Response))
    process.data_received(
        pack(session_id, content) if is_valid else _frame(json.dumps([session_id, content]).encode())
    )
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
        process.data_received(pack(1, OutOfMemory("")))
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


def _frame(body: bytes) -> bytes:
    """Return a message of any ``body``, as it goes over the socket."""
    return _LENGTH.pack(len(body)) + body


async def _read_until_the_end(process: WorkerProcess) -> None:
    while isinstance(await process.next_unit(), UnitFrames):
        pass
