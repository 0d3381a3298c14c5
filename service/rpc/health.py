"""gRPC's health service; its watches do not delay the shutdown of the server.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2

HEALTH_SERVICE: str = health.SERVICE_NAME
_Status = health_pb2.HealthCheckResponse
_Servicer: Any = health.aio.HealthServicer  # pyright: ignore[reportAttributeAccessIssue]: set at import


class Health(_Servicer):
    """Reports SERVING or NOT_SERVING for each service; it starts as NOT_SERVING."""

    def __init__(self, *services: str) -> None:
        super().__init__()
        self._services = ("", *services)
        self._is_ready = self._is_leaving = False
        self._change = asyncio.Event()

    async def set_ready(self, *, ready: bool) -> None:
        """Report SERVING for all services if ``ready`` is true, else NOT_SERVING."""
        self._is_ready = ready
        for service in self._services:
            await self.set(service, self._status(service))
        self._change.set()
        self._change = asyncio.Event()

    async def leave(self) -> None:
        """Report NOT_SERVING to all watches and end them; clients would keep them open forever."""
        self._is_leaving = True
        await self.set_ready(ready=False)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        told = None
        while True:
            change, status = self._change, self._status(request.service)
            if status != told:
                await context.write(_Status(status=status))
                told = status
            if self._is_leaving and told == self._status(request.service):
                return
            await change.wait()

    def _status(self, service: str) -> int:
        if service not in self._services:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if self._is_ready else _Status.NOT_SERVING
