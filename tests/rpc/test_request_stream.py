"""The idle timeout of uploads; a timeout of 0 s has passed as soon as the server waits."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.running_server import OPTIONS
from tubelet.service.errors import UploadIdleTimeout
from tubelet.service.rpc.request_stream import read_chunks, read_options
from tubelet.v1 import video_classifier_pb2 as pb

Message = pb.ClassifyRequest | memoryview


class Patient:
    """The context of a call without a deadline."""

    def time_remaining(self) -> None:
        return None


PATIENT: Any = Patient()


async def sent(*messages: Message, then_silent: bool = False) -> AsyncIterator[Message]:
    for message in messages:
        yield message
    if then_silent:
        await asyncio.Event().wait()


async def empty_ones() -> AsyncIterator[Message]:
    while True:
        await asyncio.sleep(0)
        yield memoryview(b"")


async def test_idle_timeout_is_paused_while_the_server_does_not_read() -> None:
    messages = sent(OPTIONS, memoryview(b"a"), pb.ClassifyRequest(chunk=b"b"))
    assert await read_options(messages, PATIENT, 0) == OPTIONS.options
    found = []
    async for chunk in read_chunks(messages, PATIENT, 0):
        for _ in range(5):  # so long that a limit that still ran would be over
            await asyncio.sleep(0)
        found.append(bytes(chunk))
    assert found == [b"a", b"b"]


async def test_missing_options_end_in_an_idle_timeout() -> None:
    with pytest.raises(UploadIdleTimeout, match="no byte of the call arrived for 0 s"):
        await read_options(sent(then_silent=True), PATIENT, 0)


@pytest.mark.parametrize(
    "messages", [sent(memoryview(b"a"), then_silent=True), empty_ones()], ids=["nothing", "empty chunks"]
)
async def test_missing_chunks_end_in_an_idle_timeout(messages: AsyncIterator[Message]) -> None:
    chunks = read_chunks(messages, PATIENT, 0)
    with pytest.raises(UploadIdleTimeout):
        assert [bytes(chunk) async for chunk in chunks] == []
