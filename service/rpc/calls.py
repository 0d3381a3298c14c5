"""Calls in flight: counts and logs each one, answers its error with a status, ends all on a stop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc

from tubelet.service.errors import InternalError, QuotaExceeded, ServerStopped, TubeletError
from tubelet.service.log.lines import request_id
from tubelet.service.metrics import Metrics
from tubelet.service.rpc.access import Access, check_rpc
from tubelet.service.rpc.call import Call
from tubelet.service.rpc.request_id import find_request_id
from tubelet.service.rpc.request_stream import Context, is_out_of_time
from tubelet.service.wire.status import REQUEST_ID, to_status

logger = logging.getLogger(__name__)


class Calls:
    """All calls in flight, whom ``access`` lets in and ``metrics`` count.

    Of the successes, the share ``sample`` is logged.
    """

    def __init__(self, access: Access, metrics: Metrics, sample: float) -> None:
        self._access = access
        self._metrics = metrics
        self._sample = sample
        self._tasks: set[asyncio.Task[Any]] = set()
        self._has_ended = False

    def end_all(self) -> None:
        """Answer all calls in flight with SERVER_STOPPED."""
        self._has_ended = True
        for task in self._tasks:
            task.cancel()

    @asynccontextmanager
    async def track(self, method: str, context: Context) -> AsyncIterator[Call]:
        """Count and log the call that this task answers; an error's status tells no internals."""
        call, task = Call(method, context, find_request_id(context)), _this_task()
        trailing_metadata = ((REQUEST_ID, call.request_id),)
        self._tasks.add(task)
        request_id.set(call.request_id)
        context.set_trailing_metadata(trailing_metadata)
        try:
            with self._mask_errors(call.request_id, task):
                call.identity = self._access.identify(context)
                check_rpc(call.identity, method)
                yield call
        except TubeletError as error:
            call.code, call.reason = error.code, error.reason
            if isinstance(error, QuotaExceeded):
                call.quota = error.quota
                self._metrics.quota_exceeded.labels(call.identity.name, error.quota).inc()
            if error.before_work and not call.has_bytes:
                self._metrics.rejected.labels(error.reason).inc()
            else:
                self._metrics.failed.labels(error.reason, call.model).inc()
            status = to_status(error)
            with _left_is_cancelled():
                await context.abort(status.code, status.details, status.trailing_metadata + trailing_metadata)
        except asyncio.CancelledError:
            late = is_out_of_time(context)
            call.code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            self._metrics.failed.labels(call.code.name, call.model).inc()
            raise
        finally:
            self._tasks.discard(task)
            self._metrics.requests.labels(method, call.model, call.code.name).inc()
            call.log(self._sample)

    @contextmanager
    def _mask_errors(self, call_id: str, task: asyncio.Task[Any]) -> Iterator[None]:
        """Turn any exception but the client's cancellation into a TubeletError.

        An unexpected one is logged, and the client gets only the id of its call.

        Raises:
            ServerStopped: ``end_all`` cancelled the call.
        """
        try:
            with _left_is_cancelled():
                yield
        except TubeletError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, _ClientLeft):
                raise
            if isinstance(error, asyncio.CancelledError) and task.cancelling():
                if not self._has_ended or task.uncancel():
                    raise
                raise ServerStopped("the server shut down before it could answer; try again") from None
            logger.exception("internal error", extra={"fields": {"request_id": call_id}})
            raise InternalError(call_id) from error


class _ClientLeft(asyncio.CancelledError):
    """The client has left, as a message or a status was on its way to it."""


@contextmanager
def _left_is_cancelled() -> Iterator[None]:
    """Turn the error of gRPC that it cannot send any more into a cancellation.

    Raises:
        _ClientLeft: the client has left, which is no error of the server.
    """
    try:
        yield
    except grpc.aio.InternalError:
        raise _ClientLeft from None


def _this_task() -> asyncio.Task[Any]:
    """Return the task that runs."""
    task = asyncio.current_task()
    assert task is not None
    return task
