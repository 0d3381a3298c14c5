"""What comes of a call: messages that are some, in their order, and in time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from tubelet.service.errors import MalformedMessage, MessageOutOfOrder, UploadIdleTimeout
from tubelet.service.ingest.spooled_file import Piece
from tubelet.v1 import video_classifier_pb2 as pb
from tubelet.v1.classification_pb2 import ClassifyOptions

Context = grpc.aio.ServicerContext
Message = pb.ClassifyRequest | pb.ClassifyStreamingRequest | memoryview  # a chunk alone is its bytes
M = TypeVar("M", bound=ProtoMessage)

_MAX_PARSED_BYTES = 1 << 18  # of a message beside a chunk: 2,000 ranges and the longest URI take half of it

# A client whose deadline passes cancels the call, and its cancellation may get here before our own timer.
_DEADLINE_SLACK_S = 0.05
_ROUNDS_BEFORE_CANCELLATION = 3


def parser(kind: type[M]) -> Callable[[bytes], M]:
    """What reads messages of a kind, and raises MalformedMessage."""
    name = kind.DESCRIPTOR.full_name

    def parse(message: bytes) -> M:
        if len(message) > _MAX_PARSED_BYTES:  # two million empty ranges take a tenth of a second to parse
            raise MalformedMessage(
                f"a {name} has {len(message)} bytes, the limit of one that is not a chunk alone is "
                f"{_MAX_PARSED_BYTES}",
                limit=_MAX_PARSED_BYTES,
                value=len(message),
            )
        try:
            return kind.FromString(message)
        except DecodeError:
            raise MalformedMessage(f"a message of {len(message)} bytes is no {name}") from None

    return parse


async def read_options(
    messages: AsyncIterator[Message], context: Context, idle_timeout_s: float
) -> ClassifyOptions:
    """The first message's.

    Raises:
        MessageOutOfOrder, MalformedMessage, UploadIdleTimeout.
    """
    async with _upload_idle_timeout(idle_timeout_s):
        first = await anext(messages, None)
    if first is None:
        await _await_pending_cancellation(context, is_likely=True)
    if first is None or isinstance(first, memoryview) or first.WhichOneof("part") != "options":
        found = "none" if first is None else _part(first) or "an empty one"
        raise MessageOutOfOrder(f"the first message must hold the options; found: {found}")
    return first.options


async def read_chunks(
    messages: AsyncIterator[Message], context: Context, idle_timeout_s: float
) -> AsyncIterator[Piece]:
    """What the messages after the options hold, up to their end.

    Raises:
        MessageOutOfOrder, MalformedMessage, UploadIdleTimeout.
    """
    is_empty, loop = True, asyncio.get_running_loop()
    # One timer for all of them: to make one for each costs as much as to write a small one.
    async with _upload_idle_timeout(idle_timeout_s) as timeout:
        while chunk := await _next_chunk(messages):
            is_empty = False
            timeout.reschedule(None)  # now the client waits for us
            yield chunk
            timeout.reschedule(loop.time() + idle_timeout_s)
    await _await_pending_cancellation(context, is_likely=is_empty)


async def _next_chunk(messages: AsyncIterator[Message]) -> Piece | None:
    """The next one that has a byte, however many without one come before; None at the end."""
    while (message := await anext(messages, None)) is not None:
        if _part(message) != "chunk":
            found = "the options came twice" if _part(message) else "an empty message came"
            raise MessageOutOfOrder(f"{found}; all messages after the first must hold chunks")
        if chunk := message if isinstance(message, memoryview) else message.chunk:
            return chunk
    return None


@asynccontextmanager
async def _upload_idle_timeout(idle_timeout_s: float) -> AsyncIterator[asyncio.Timeout]:
    """While a client is waited for, and only then: it may have to wait for us too."""
    try:
        async with asyncio.timeout(idle_timeout_s) as timeout:
            yield timeout
    except TimeoutError:
        raise UploadIdleTimeout(
            f"no byte of the upload came for {idle_timeout_s:g} s, which is the limit",
            limit=f"{idle_timeout_s:g}",
        ) from None


async def _await_pending_cancellation(context: Context, *, is_likely: bool) -> None:
    """Wait for a cancellation that may be on its way.

    The stream of a call that was cancelled or ran out of time ends as that of a complete one does, and the
    end of the call is heard a moment later: it must come before any work on half a file.
    """
    for _ in range(_ROUNDS_BEFORE_CANCELLATION):
        await asyncio.sleep(0)
    if is_likely or is_out_of_time(context):
        await asyncio.sleep(_DEADLINE_SLACK_S)


def _part(message: Message) -> str | None:
    return "chunk" if isinstance(message, memoryview) else message.WhichOneof("part")


def is_out_of_time(context: Context) -> bool:
    remaining = context.time_remaining()
    return remaining is not None and remaining < _DEADLINE_SLACK_S


Parsed = TypeVar("Parsed")

_TAG = b"\x12"  # field 2, of bytes
_LENGTH_BYTES = 5  # at most: messages have less than 2 GiB


def parse_unless_chunk(parse: Callable[[bytes], Parsed]) -> Callable[[bytes], Parsed | memoryview]:
    """Read a message that holds a chunk and nothing else without a copy, and parse any other one."""

    def read(message: bytes) -> Parsed | memoryview:
        chunk = chunk_payload(message)
        return parse(message) if chunk is None else chunk

    return read


def chunk_payload(message: bytes) -> memoryview | None:
    """What a message holds that is ``chunk`` alone; None for any other one."""
    if message[:1] != _TAG:
        return None
    size = 0
    for place, byte in enumerate(message[1 : 1 + _LENGTH_BYTES]):
        size |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            start = place + 2
            return memoryview(message)[start:] if len(message) == start + size else None
    return None
