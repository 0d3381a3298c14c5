"""A start that ends before the server is ready."""

import asyncio
import socket
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tubelet.service.config.config import load_config
from tubelet.service.server.app import open_server

_SOON = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]


async def test_who_watches_the_health_does_not_delay_the_end_of_a_start() -> None:
    """SIGTERM cancels the start while the sample clip is classified; calls are taken by then."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = {"host": "127.0.0.1", "port": port, "metrics_port": 0, "drain_s": 3600.0}

    async def start() -> None:
        async with open_server(load_config(server=server)):
            pass

    starting = asyncio.create_task(start())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", _SOON) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = aiter(stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True))
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        starting.cancel()
        async with asyncio.timeout(60):
            assert [each async for each in watch] == []
            with pytest.raises(asyncio.CancelledError):
                await starting
