"""Calls that anybody may make: health checks and reflection. Their number at a time leaves room for others.

Whoever connects can open such calls and send no message. So a call beyond the limit is not refused: it ends
the oldest one, and a sound client gets its answer.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tubelet.service.errors import Overloaded, ServerStopped, TubeletError
from tubelet.service.rpc.health import HEALTH_SERVICE, Health
from tubelet.service.rpc.request_stream import Context, parser, read_request
from tubelet.service.wire.status import to_status

_MAX_UNREAD = 64  # calls of which the server waits for a message; each may have sent most of one
_UNREAD_S = 60.0  # longest time to wait for the message of a health check
_RETRY_AFTER_S = 1.0


class NewestCalls:
    """At most ``limit`` calls at a time, the newest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._has_ended = False
        self._tasks: dict[asyncio.Task[Any] | None, None] = {}  # the oldest first

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count this task's call; end the oldest one if there are too many.

        Raises:
            Overloaded: this call was the oldest when there were too many.
            ServerStopped: all calls were ended.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._has_ended:
            raise self._error()
        while len(self._tasks) >= self._limit:
            self._end_oldest()
        self._tasks[task] = None
        try:
            yield
        except asyncio.CancelledError:
            if task in self._tasks or task.uncancel():  # its client has cancelled it
                raise
            raise self._error() from None
        finally:
            self._tasks.pop(task, None)

    def end_all(self) -> None:
        """End all calls, and each one that comes."""
        self._has_ended = True
        while self._tasks:
            self._end_oldest()

    def _error(self) -> TubeletError:
        """Say why a call was ended."""
        if self._has_ended:
            return ServerStopped("the server shuts down; try again")
        message = f"a newer call ended this one: there may be {self._limit} of this kind at a time"
        return Overloaded(message, retry_after_s=_RETRY_AFTER_S)

    def _end_oldest(self) -> None:
        """End the oldest call."""
        task = next(iter(self._tasks))
        del self._tasks[task]
        assert task is not None
        task.cancel()


class OpenCalls:
    """The calls of the health service, of which ``max_watches`` may watch the health, and of reflection."""

    def __init__(self, max_watches: int) -> None:
        self._unread = NewestCalls(_MAX_UNREAD)
        self._watches = NewestCalls(max_watches)

    def add_health(self, server: grpc.aio.Server, health: Health) -> None:
        """Register the health service with ``server``."""

        async def check(messages: AsyncIterator[Any], context: Context) -> Message | None:
            """Answer with the health of a service."""
            async with _answering(context):
                with self._unread.admit():
                    request = await read_request(messages, context, _UNREAD_S)
                return await health.Check(request, context)

        async def watch(messages: AsyncIterator[Any], context: Context) -> None:
            """Send the health of a service now, and each time that it changes."""
            async with _answering(context):
                with self._unread.admit():
                    request = await read_request(messages, context, _UNREAD_S)
                with self._watches.admit():
                    await health.Watch(request, context)

        parse = parser(health_pb2.HealthCheckRequest)
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        handlers = {
            "Check": grpc.stream_unary_rpc_method_handler(check, parse, serialize),
            "Watch": grpc.stream_stream_rpc_method_handler(watch, parse, serialize),
        }
        _add(server, HEALTH_SERVICE, handlers)

    def add_reflection(self, server: grpc.aio.Server, services: Sequence[str]) -> None:
        """Register reflection of ``services`` with ``server``."""
        make: Any = reflection.aio.ReflectionServicer  # pyright: ignore[reportAttributeAccessIssue]
        servicer = make((*services, reflection.SERVICE_NAME))

        async def reflect(messages: AsyncIterator[Any], context: Context) -> None:
            """Answer each message with a part of the protocol."""
            async with _answering(context):
                with self._unread.admit():
                    async for response in servicer.ServerReflectionInfo(messages, context):
                        await context.write(response)

        handler = grpc.stream_stream_rpc_method_handler(
            reflect,
            parser(reflection_pb2.ServerReflectionRequest),
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        _add(server, reflection.SERVICE_NAME, {"ServerReflectionInfo": handler})

    def end_unread(self) -> None:
        """End the calls of which the server waits for a message."""
        self._unread.end_all()


@asynccontextmanager
async def _answering(context: Context) -> AsyncIterator[None]:
    """Answer an error with its status."""
    try:
        yield
    except TubeletError as error:
        status = to_status(error)
        await context.abort(status.code, status.details, status.trailing_metadata)


def _add(server: grpc.aio.Server, service: str, handlers: dict[str, grpc.RpcMethodHandler]) -> None:
    """Register the methods of ``service`` with ``server``."""
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    registry: Any = server  # its types lack this method
    registry.add_registered_method_handlers(service, handlers)
