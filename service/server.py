"""Wires everything, starts and stops it: the only place where objects are built."""

import asyncio
import importlib.resources
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import grpc
import torch
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from models.extras import MissingExtra
from models.folder import BrokenModel
from models.precision import UnsupportedPrecision
from models.store import ZOO, ModelStore
from service.catalogue import Catalogue
from service.config import Config
from service.decode.pool import DecodePool
from service.engine.engine import Engine
from service.fetch.fetcher import Fetcher
from service.intake import Intake
from service.metrics import Metrics
from service.pipeline import Event, Pipeline
from service.servicer import Servicer
from service.values import Options
from tubelet.v1 import video_classifier_pb2
from tubelet.v1.video_classifier_pb2_grpc import add_VideoClassifierServicer_to_server

SERVICE = video_classifier_pb2.DESCRIPTOR.services_by_name["VideoClassifier"].full_name
SAMPLE_CLIP = importlib.resources.files("service") / "sample.mp4"
"""A few seconds of camera moves over a picture that the project drew itself: for warm-up and demo."""

_PING_INTERVAL_MS = 10_000  # the shortest that a client may have

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready: where it listens, and what drains it."""

    port: int
    metrics_port: int
    pipeline: Pipeline
    metrics: Metrics


@asynccontextmanager
async def open_pipeline(config: Config, metrics: Metrics) -> AsyncIterator[Pipeline]:
    """Models loaded and decoders started; both are gone when the context ends.

    Raises:
        models.store.UnknownModel, models.store.BrokenModel: the default model cannot be served.
        models.extras.MissingExtra: neither that nor the URIs that are allowed, without a library.
    """
    store = ModelStore(ZOO, config.models.store)
    for problem in store.broken:
        logger.error("a model is not served: %s", problem)
    async with (
        Engine(config.engine, metrics) as engine,
        _decoders(config, metrics) as decoders,
        Fetcher(config.fetch) as fetcher,
    ):
        models = [await engine.load(store, store.find(config.models.default).spec)]
        for spec in store.specs():
            wanted = not config.models.load or spec.name in config.models.load
            if spec == models[0].spec or not wanted:
                continue
            try:
                models.append(await engine.load(store, spec))
            except (
                BrokenModel,
                MissingExtra,
                UnsupportedPrecision,
                MemoryError,
                torch.OutOfMemoryError,
            ) as error:
                logger.error("model %s %s is not served: %s", spec.name, spec.version, error)
        intake = Intake(config, fetcher, metrics)
        yield Pipeline(config, Catalogue(tuple(models)), intake, decoders, engine, metrics)


@asynccontextmanager
async def open_server(config: Config) -> AsyncIterator[RunningServer]:
    """A server that is ready; leaving the context drains it.

    Draining: health turns to NOT_SERVING, new calls are refused, those in flight have
    ``server.drain_s`` to end and are cancelled then.
    """
    started = monotonic()
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        pipeline = await stack.enter_async_context(open_pipeline(config, metrics))
        metrics_port = await stack.enter_async_context(_metrics_server(config, metrics))
        port, healthiness = await stack.enter_async_context(_grpc_server(config, pipeline, metrics))
        await _warm_up(pipeline)
        await _set_ready(healthiness, metrics, ready=True)
        logger.info("ready after %.1f s", monotonic() - started)
        try:
            yield RunningServer(port, metrics_port, pipeline, metrics)
        finally:
            await _set_ready(healthiness, metrics, ready=False)


async def run_until_signal(config: Config, ready: Callable[[RunningServer], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_server(config) as server:
        ready(server)
        await stop.wait()
        logger.info("draining for up to %g s", config.server.drain_s)


@asynccontextmanager
async def _metrics_server(config: Config, metrics: Metrics) -> AsyncIterator[int]:
    """Prometheus's HTTP server; its port."""
    http, thread = start_http_server(config.server.metrics_port, config.server.host, metrics.registry)
    try:
        yield http.server_port
    finally:
        await asyncio.to_thread(http.shutdown)
        http.server_close()
        thread.join()


@asynccontextmanager
async def _grpc_server(
    config: Config, pipeline: Pipeline, metrics: Metrics
) -> AsyncIterator[tuple[int, Any]]:
    """The gRPC server, which listens but says NOT_SERVING; its port and its health. It drains at the end.

    Raises:
        OSError: the port cannot be bound.
    """
    limits = config.server
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # Clients hold channels for hours; ended now and then, they find new replicas. Calls under way go
            # on, however long they are: the grace is unlimited unless it is set.
            ("grpc.max_connection_age_ms", round(limits.max_connection_age_s * 1000)),
            ("grpc.max_concurrent_streams", limits.max_streams_per_connection),
            # A client that is gone without a word gives its place back; those that ask us are not sent away.
            ("grpc.keepalive_time_ms", round(limits.keepalive_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_MS),
            # Two servers on one port would share its connections silently.
            ("grpc.so_reuseport", 0),
        ]
    )
    add_VideoClassifierServicer_to_server(Servicer(pipeline, metrics), server)
    # Type checkers do not see what the package sets at import.
    healthiness: Any = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]
    await _set_ready(healthiness, metrics, ready=False)
    health_pb2_grpc.add_HealthServicer_to_server(healthiness, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(f"{limits.host}:{limits.port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {limits.host}:{limits.port}: {error}") from error
    await server.start()
    try:
        yield port, healthiness
    finally:
        await server.stop(limits.drain_s)


async def _set_ready(healthiness: Any, metrics: Metrics, *, ready: bool) -> None:
    status = health_pb2.HealthCheckResponse
    for service in ("", SERVICE):
        await healthiness.set(service, status.SERVING if ready else status.NOT_SERVING)
    metrics.ready.set(ready)


async def _warm_up(pipeline: Pipeline) -> None:
    """The default model answers a real clip through all stages before anybody else is let in."""

    async def chunks() -> AsyncIterator[bytes]:
        yield SAMPLE_CLIP.read_bytes()

    async def ignore(_: Event) -> None:
        pass

    await pipeline.classify(chunks(), Options(), ignore)
    pipeline.forget()  # the demo uploads the same clip, and shows what a first answer costs


def _decoders(config: Config, metrics: Metrics) -> DecodePool:
    pool = DecodePool(config.decode, lambda death: metrics.decoder_deaths.labels(death.value).inc())
    metrics.watch_decoders(lambda: pool.busy_workers, lambda: pool.busy_s, lambda: pool.protections)
    return pool
