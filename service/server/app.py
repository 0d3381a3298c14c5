"""Wires everything, starts and stops it: the only place where objects are built."""

import asyncio
import importlib.resources
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import monotonic

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tubelet.service.config.config import Config
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.engine.engine import Engine
from tubelet.service.errors import UploadTooLarge, VideoTooLarge
from tubelet.service.ingest.fetcher import Fetcher
from tubelet.service.ingest.ingest import Ingest
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.pipeline import Event, Pipeline
from tubelet.service.pipeline.registry import Catalogue
from tubelet.service.rpc.health import HEALTH_SERVICE, Health
from tubelet.service.rpc.servicer import SERVICE, Servicer, add_to
from tubelet.service.server.listening import choose_port, resolve, with_port
from tubelet.service.server.model_manager import Shelf
from tubelet.service.server.monitoring import Readiness, State, open_monitoring
from tubelet.service.types.request import Options

SAMPLE_CLIP = importlib.resources.files("tubelet.service.server") / "warmup.mp4"
"""A few seconds of camera moves over a picture that the project drew itself: for warm-up and demo."""

_LAST_WORDS_S = 1.0  # for clients to hear that there is no more time for them
_PING_INTERVAL_MS = 10_000  # the shortest that a client may have

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stages:
    """What answers: models on their devices, decoders, and the line through them."""

    pipeline: Pipeline
    warm_up: Pipeline  # through the same models and decoders, but counted in no metric
    decoders: DecodePool
    shelf: Shelf
    is_over: asyncio.Event  # no device is left


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready: where it listens, and what it serves with."""

    addresses: tuple[str, ...]  # "::" alone is every one, IPv6 and IPv4
    port: int
    metrics_port: int
    stages: Stages
    metrics: Metrics


@asynccontextmanager
async def open_stages(config: Config, metrics: Metrics) -> AsyncIterator[Stages]:
    """Models loaded and decoders started; both are gone when the context ends.

    Raises:
        UnknownModel, BrokenModel: the default model cannot be served.
        NotThere: the configuration names a store or models that are not there.
        tubelet.models.errors.MissingExtra: neither that nor the URIs that are allowed, without a library.
    """
    is_over = asyncio.Event()

    def on_loss(_: str) -> None:
        if not engine.is_fit:
            is_over.set()

    engine = Engine(config.engine, metrics, on_loss)
    async with engine, _decoders(config, metrics, engine) as decoders, Fetcher(config.fetch) as fetcher:
        catalogue = Catalogue()
        shelf = Shelf(engine, catalogue)
        await shelf.refresh(config.models)

        def pipeline(metrics: Metrics) -> Pipeline:
            ingest = Ingest(config, fetcher, metrics)
            return Pipeline(config, catalogue, ingest, decoders, engine, metrics)

        yield Stages(pipeline(metrics), pipeline(Metrics()), decoders, shelf, is_over)


@asynccontextmanager
async def open_server(config: Config) -> AsyncIterator[RunningServer]:
    """A server that is ready; leaving the context drains it.

    Draining: health turns to NOT_SERVING, new calls are refused, those in flight have
    ``server.drain_s`` to end and are told then that there is no more time.
    """
    started = monotonic()
    metrics, readiness = Metrics(), Readiness()
    metrics.ready.set_function(lambda: readiness.is_ready)
    addresses = await asyncio.to_thread(resolve, config.server.host)
    async with AsyncExitStack() as stack:
        monitoring = open_monitoring(addresses, config.server.metrics_port, metrics.registry, readiness)
        metrics_port = await stack.enter_async_context(monitoring)
        # Bound before the models are loaded, which takes seconds: a port that is taken is known at once.
        server, port = _bound(config, addresses)
        stages = await stack.enter_async_context(open_stages(config, metrics))
        health = await stack.enter_async_context(_serving(server, config, stages.pipeline, metrics))
        await _warm_up(stages.warm_up)
        await stages.decoders.reset_busy_time()
        metrics.count_decoder_seconds(lambda: stages.decoders.busy_s)
        readiness.state = State.READY
        await health.set_ready(ready=True)
        logger.info("ready after %.1f s", monotonic() - started)
        watching = asyncio.create_task(_unready_when(stages.is_over, health, readiness))
        try:
            yield RunningServer(addresses, port, metrics_port, stages, metrics)
        finally:
            watching.cancel()
            readiness.state = State.DRAINING
            await health.leave()


async def _unready_when(is_over: asyncio.Event, health: Health, readiness: Readiness) -> None:
    await is_over.wait()
    readiness.state = State.NO_DEVICE
    await health.set_ready(ready=False)


def _bound(config: Config, addresses: tuple[str, ...]) -> tuple[grpc.aio.Server, int]:
    """Make a gRPC server that has its port at each address, and return that port too.

    Raises:
        OSError: the port cannot be bound.
    """
    limits = config.server
    server = grpc.aio.server(
        # Of a call of any method gRPC keeps a message that is on its way in memory, before we hear of it. Far
        # out, since gRPC says neither why it refuses nor when to come back, to health checks too.
        maximum_concurrent_rpcs=limits.max_videos_in_flight + limits.max_other_calls,
        options=[
            ("grpc.max_receive_message_length", limits.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # Clients hold channels for hours; ended now and then, they find new replicas. Calls under way go
            # on, however long they are: the grace is unlimited unless it is set.
            ("grpc.max_connection_age_ms", round(limits.max_connection_age_s * 1000)),
            ("grpc.max_concurrent_streams", limits.max_calls_per_connection),
            # A client that is gone without a word gives its place back; those that ask us are not sent away.
            ("grpc.keepalive_time_ms", round(limits.keepalive_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_MS),
            # What clients may send ahead is in our memory; gRPC itself would raise it without a bound.
            ("grpc.http2.lookahead_bytes", limits.flow_control_window_bytes),
            ("grpc.http2.bdp_probe", 0),
            # Two servers on one port would share its connections silently.
            ("grpc.so_reuseport", 0),
        ],
    )
    # Bound once before: gRPC would not say what is wrong with an address.
    port = choose_port(addresses, limits.port, "--port")
    for address in addresses:
        try:
            port = server.add_insecure_port(with_port(address, port))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {with_port(address, port)}: {error}") from error
    return server, port


@asynccontextmanager
async def _serving(
    server: grpc.aio.Server, config: Config, pipeline: Pipeline, metrics: Metrics
) -> AsyncIterator[Health]:
    """The server answers, but says NOT_SERVING: its health. It drains at the end."""
    servicer = Servicer(pipeline, metrics, config.upload.idle_timeout_s)
    add_to(server, servicer)
    health = Health(SERVICE)
    await health.set_ready(ready=False)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection((SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME), server)
    await server.start()
    try:
        yield health
    finally:
        ending = asyncio.get_running_loop().call_later(config.server.drain_s, servicer.end_calls)
        await server.stop(config.server.drain_s + _LAST_WORDS_S)
        ending.cancel()


async def _warm_up(pipeline: Pipeline) -> None:
    """The default model answers a real clip through all stages before anybody else is let in."""

    async def chunks() -> AsyncIterator[bytes]:
        yield SAMPLE_CLIP.read_bytes()

    async def ignore(_: Event) -> None:
        pass

    try:
        await pipeline.classify(chunks(), Options(), ignore)
    except (VideoTooLarge, UploadTooLarge) as error:
        logger.warning(
            "the first video will take longer, for the clip that warms up is over a limit: %s", error
        )
    pipeline.forget()  # the demo uploads the same clip, and shows what a first answer costs


def _decoders(config: Config, metrics: Metrics, engine: Engine) -> DecodePool:
    pool = DecodePool(
        config.decode,
        on_worker_failure=lambda death: metrics.decoder_failures.labels(death.value).inc(),
        on_work=lambda at_work: engine.decoders_at_work(at_work * config.decode.threads),
    )
    metrics.watch_decoders(lambda: pool.busy_workers, lambda: pool.protections, lambda: pool.process_ids)
    return pool
