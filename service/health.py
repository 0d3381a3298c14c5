"""gRPC's health service, whose watches do not hold up a server that leaves.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2

HEALTH_SERVICE: str = health.SERVICE_NAME
_Status = health_pb2.HealthCheckResponse
_Servicer: Any = health.aio.HealthServicer  # pyright: ignore[reportAttributeAccessIssue]: set at import


class Health(_Servicer):
    """What it says of each service is SERVING or NOT_SERVING; NOT_SERVING until somebody says otherwise."""

    def __init__(self, *services: str) -> None:
        super().__init__()
        self._services = ("", *services)
        self._leaving = asyncio.Event()

    async def tell(self, *, ready: bool) -> None:
        for service in self._services:
            await self.set(service, _Status.SERVING if ready else _Status.NOT_SERVING)

    async def leave(self) -> None:
        """Say NOT_SERVING to all who watch, and end their calls, which clients keep as long as they live."""
        await self.tell(ready=False)
        self._leaving.set()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        tasks = [
            asyncio.ensure_future(each) for each in (super().Watch(request, context), self._leaving.wait())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if self._leaving.is_set():
            await context.write(_Status(status=_Status.NOT_SERVING))
