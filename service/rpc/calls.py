"""Calls in flight: counts each one, answers its error with a status, and ends all when the server stops."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from tubelet.service.errors import InternalError, ServerStopped, TubeletError
from tubelet.service.metrics import Metrics
from tubelet.service.rpc.request_stream import Context, is_out_of_time
from tubelet.service.wire.status import to_status

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Call:
    """A call in flight; ``model`` is its label in the metrics, and is set once the model is known."""

    context: Context
    model: str = ""


class Calls:
    """All calls in flight, which ``metrics`` count."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tasks: set[asyncio.Task[Any]] = set()
        self._has_ended = False

    def end_all(self) -> None:
        """Answer all calls in flight with SERVER_STOPPED."""
        self._has_ended = True
        for task in self._tasks:
            task.cancel()

    @asynccontextmanager
    async def track(self, method: str, context: Context) -> AsyncIterator[Call]:
        """Count the call that this task answers; an error ends it with a status that tells no internals."""
        call, code, task = Call(context), grpc.StatusCode.OK, asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with self._mask_errors(task):
                yield call
        except TubeletError as error:
            code = error.code
            if error.before_work:
                self._metrics.rejected.labels(error.reason).inc()
            else:
                self._metrics.failed.labels(error.reason, call.model).inc()
            status = to_status(error)
            await context.abort(status.code, status.details, status.trailing_metadata)
        except asyncio.CancelledError:
            late = is_out_of_time(context)
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            self._metrics.failed.labels(code.name, call.model).inc()
            raise
        finally:
            self._tasks.discard(task)
            self._metrics.requests.labels(method, call.model, code.name).inc()

    @contextmanager
    def _mask_errors(self, task: asyncio.Task[Any]) -> Iterator[None]:
        """Turn any exception but the client's cancellation into a TubeletError.

        An unexpected one is logged, and the client gets only its id.

        Raises:
            ServerStopped: ``end_all`` cancelled the call.
        """
        try:
            yield
        except TubeletError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and task.cancelling():
                if not self._has_ended or task.uncancel():
                    raise
                raise ServerStopped("the server shut down before it could answer; try again") from None
            error_id = uuid.uuid4().hex[:12]
            logger.exception("internal error %s", error_id)
            raise InternalError(error_id) from error
