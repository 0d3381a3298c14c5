"""The server: builds all parts, starts and stops them. No other module builds them."""

import asyncio
import importlib.resources
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import grpc

from tubelet.models.costs import energy_counters
from tubelet.models.errors import MissingExtra
from tubelet.service.config.config import Config, ServerConfig
from tubelet.service.config.jwt import JwtConfig
from tubelet.service.config.problems import BadConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.engine.engine import Engine
from tubelet.service.errors import UploadTooLarge, VideoTooLarge
from tubelet.service.ingest.fetcher import Fetcher
from tubelet.service.ingest.ingest import Ingest
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline.pipeline import Pipeline
from tubelet.service.pipeline.registry import ModelRegistry
from tubelet.service.rpc.access import Access
from tubelet.service.rpc.admission import Admission
from tubelet.service.rpc.calls import Calls
from tubelet.service.rpc.health import HEALTH_SERVICE, Health
from tubelet.service.rpc.open_calls import OpenCalls
from tubelet.service.rpc.servicer import SERVICE, Servicer, add_to
from tubelet.service.server.connections import watch_connections
from tubelet.service.server.identities import IdentitiesFile
from tubelet.service.server.listening import bind_grpc, is_loopback, listed, resolve
from tubelet.service.server.model_manager import ModelManager
from tubelet.service.server.monitoring import HttpGuard, Readiness, State, open_monitoring
from tubelet.service.server.tls import ServerTls
from tubelet.service.types.request import Options
from tubelet.service.types.result import ignore_event

if TYPE_CHECKING:
    from tubelet.service.server.jwks import IssuerKeys

SAMPLE_CLIP = importlib.resources.files("tubelet.service.server") / "warmup.mp4"
"""A clip of a few seconds for warm-up and demo: camera moves over a picture that the project drew itself."""

_LAST_ANSWERS_S = 1.0  # for calls that are ended when the time to drain is over to be answered
_PING_INTERVAL_MS = 10_000  # the shortest interval at which clients may ping
_HANDSHAKE_MS = 20_000  # the longest time from a connection to its first frame of HTTP/2, with TLS between

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stages:
    """The parts that answer requests: models on their devices, decode workers, and the pipeline over them."""

    pipeline: Pipeline
    decoders: DecodePool
    model_manager: ModelManager
    is_over: asyncio.Event  # set once no device is left


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready: its addresses, ports and parts."""

    addresses: tuple[str, ...]  # "::" alone is all addresses, IPv6 and IPv4
    port: int
    mtls_port: int | None
    metrics_port: int
    stages: Stages
    metrics: Metrics
    tls: ServerTls | None
    identities: IdentitiesFile | None
    issuer_keys: "IssuerKeys | None"


@asynccontextmanager
async def open_stages(config: Config, metrics: Metrics) -> AsyncIterator[Stages]:
    """Load the models and start the decode workers; both are stopped when the context ends.

    Raises:
        UnknownModel, BrokenModel: the default model cannot be served.
        MissingModels: the configuration names a store or models that are not there.
        tubelet.models.errors.MissingExtra: the default model, or a URI that is allowed, needs a library.
    """
    is_over = asyncio.Event()

    def on_device_lost(_: str) -> None:
        """Set ``is_over`` once no device is left."""
        if not engine.has_devices:
            is_over.set()

    engine = Engine(config.engine, metrics, on_device_lost)
    async with engine, _decoders(config, metrics, engine) as decoders, Fetcher(config.fetch) as fetcher:
        registry = ModelRegistry()
        model_manager = ModelManager(engine, registry)
        await model_manager.reload(config.models)

        pipeline = Pipeline(config, registry, Ingest(config, fetcher), decoders, engine, metrics)
        yield Stages(pipeline, decoders, model_manager, is_over)


@asynccontextmanager
async def open_server(config: Config) -> AsyncIterator[RunningServer]:
    """Start a server and wait until it is ready; it drains when the context ends.

    Draining: health turns to NOT_SERVING, new calls are refused, and calls in flight have ``server.drain_s``
    to end. Then they are answered ``SERVER_STOPPED``.
    """
    started = monotonic()
    metrics, readiness = Metrics(), Readiness()
    metrics.ready.set_function(lambda: readiness.is_ready)
    addresses = await asyncio.to_thread(resolve, config.server.host)
    async with AsyncExitStack() as stack:
        _check_exposure(config.server, addresses)
        tls = identities = keys = None
        admission = Admission(config.server)
        if config.server.tls.certificate is not None:
            tls = await stack.enter_async_context(ServerTls(config.server.tls, metrics))
        if config.server.access.identities is not None:
            file, defaults = config.server.access.identities, config.server.access.quotas
            identities = IdentitiesFile(file, metrics, defaults, admission.quotas.follow)
            await stack.enter_async_context(identities)
        if config.server.access.jwt.issuer:
            keys = await stack.enter_async_context(_issuer_keys(config.server.access.jwt, metrics))
        guard = HttpGuard(
            tls and tls.http_context,
            identities.refuse_metrics if identities and config.server.access.metrics_token else None,
        )
        monitoring = open_monitoring(
            addresses, config.server.metrics_port, metrics.registry, readiness, guard
        )
        metrics_port = await stack.enter_async_context(monitoring)
        # Bound before the models are loaded, which takes seconds: a taken port is an error at once.
        server, port, mtls_port = _bound(config, addresses, tls)
        stages = await stack.enter_async_context(open_stages(config, metrics))
        access = Access(identities and identities.current, keys and keys.tokens.name_of)
        calls = Calls(access, metrics, config.log.sample)
        ports = [each for each in (port, mtls_port) if each is not None]
        limit = config.server.max_connections
        await stack.enter_async_context(watch_connections(addresses, ports, limit, metrics))
        servicer = Servicer(stages.pipeline, admission, metrics, calls, config.upload.idle_timeout_s)
        health = await stack.enter_async_context(_serving(server, config, servicer, calls))
        await _warm_up(stages.pipeline)
        await stages.decoders.reset_busy_time()
        metrics.count_decoder_seconds(lambda: stages.decoders.busy_s)
        if (counters := await asyncio.to_thread(energy_counters)) is not None:
            metrics.watch_energy(counters.read)
        readiness.state = State.READY
        await health.set_ready(ready=True)
        where = f"gRPC on port {port}{'' if mtls_port is None else f', mTLS on port {mtls_port}'}"
        logger.info("ready after %.1f s: %s, metrics on port %d", monotonic() - started, where, metrics_port)
        watching = asyncio.create_task(_unready_when(stages.is_over, health, readiness))
        try:
            yield RunningServer(
                addresses, port, mtls_port, metrics_port, stages, metrics, tls, identities, keys
            )
        finally:
            watching.cancel()
            readiness.state = State.DRAINING


def _check_exposure(config: ServerConfig, addresses: tuple[str, ...]) -> None:
    """Say so where anybody can call, or read along; refuse to have tokens read along.

    On this machine's own addresses a token leaves no process but through the kernel.

    Raises:
        BadConfig: tokens would cross a network without TLS.
    """
    if is_loopback(addresses):
        return
    has_tls, is_open = config.tls.certificate is not None, config.access.identities is None
    if not (is_open or has_tls or config.access.plain_tokens):
        raise BadConfig(
            f"server.access.identities: tokens would cross the network in the clear, on {listed(addresses)}; "
            "set server.tls, or server.access.plain_tokens = true where a mesh or a proxy ends TLS"
        )
    if not has_tls:
        who = "can call, and read along; see server.tls and server.access" if is_open else "can read along"
        logger.warning("no TLS on %s: whoever reaches the ports %s", listed(addresses), who)
    elif is_open and (config.tls.client_ca is None or config.mtls_port is not None):
        logger.warning(
            "no identities on %s: whoever reaches the ports can call; see server.access", listed(addresses)
        )


def _issuer_keys(config: JwtConfig, metrics: Metrics) -> "IssuerKeys":
    """Make what keeps the keys of the issuer of tokens.

    Raises:
        tubelet.models.errors.MissingExtra: it needs a library.
    """
    try:
        from tubelet.service.server.jwks import IssuerKeys
    except ModuleNotFoundError as error:
        raise MissingExtra("server.access.jwt needs a library: pip install 'tubelet[jwt]'") from error
    return IssuerKeys(config, metrics)


async def _unready_when(is_over: asyncio.Event, health: Health, readiness: Readiness) -> None:
    """Turn health and readiness off once ``is_over`` is set."""
    await is_over.wait()
    readiness.state = State.NO_DEVICE
    await health.set_ready(ready=False)


def _bound(
    config: Config, addresses: tuple[str, ...], tls: ServerTls | None
) -> tuple[grpc.aio.Server, int, int | None]:
    """Make a gRPC server that has bound its ports at each address; return it, its port and its mTLS port.

    Raises:
        OSError: a port cannot be bound.
    """
    limits = config.server
    server = grpc.aio.server(
        # gRPC holds a message of each call in memory before our code sees the call. The limit is far out,
        # since gRPC gives neither a reason nor a time to try again, and refuses health checks too.
        maximum_concurrent_rpcs=limits.max_videos_in_flight + limits.max_other_calls,
        options=[
            ("grpc.max_receive_message_length", limits.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # Clients hold channels for hours; ended now and then, they find new replicas. Calls in flight go
            # on, however long they are: the grace is unlimited unless it is set.
            ("grpc.max_connection_age_ms", round(limits.max_connection_age_s * 1000)),
            ("grpc.max_concurrent_streams", limits.max_calls_per_connection),
            # A connection has a descriptor and memory before anybody has said who calls.
            ("grpc.max_allowed_incoming_connections", limits.max_connections),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            # A client that vanished is noticed by pings and its calls end; clients may ping the server, too.
            ("grpc.keepalive_time_ms", round(limits.keepalive_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_MS),
            # Bytes that clients send ahead are in our memory; gRPC would raise the window without a bound.
            ("grpc.http2.lookahead_bytes", limits.flow_control_window_bytes),
            ("grpc.http2.bdp_probe", 0),
            # Else two servers on one port would silently share its connections.
            ("grpc.so_reuseport", 0),
        ],
    )
    if tls is None:
        return server, bind_grpc(server, addresses, limits.port, "--port", None), None
    # A port is for clients with certificates, or for those without: gRPC cannot leave it to the client.
    for_all = partial(tls.grpc_credentials, with_client_ca=False)
    for_known = partial(tls.grpc_credentials, with_client_ca=True)
    if limits.mtls_port is None:
        credentials = for_all if limits.tls.client_ca is None else for_known
        return server, bind_grpc(server, addresses, limits.port, "--port", credentials), None
    port = bind_grpc(server, addresses, limits.port, "--port", for_all)
    return server, port, bind_grpc(server, addresses, limits.mtls_port, "server.mtls_port", for_known)


@asynccontextmanager
async def _serving(
    server: grpc.aio.Server, config: Config, servicer: Servicer, calls: Calls
) -> AsyncIterator[Health]:
    """Start to answer calls, with a health of NOT_SERVING, which is yielded; drain when the context ends."""
    add_to(server, servicer)
    health = Health(SERVICE)
    await health.set_ready(ready=False)
    open_calls = OpenCalls(max(1, config.server.max_other_calls // 2))
    open_calls.add_health(server, health)
    if config.server.access.reflection:
        open_calls.add_reflection(server, (SERVICE, HEALTH_SERVICE))
    await server.start()
    try:
        yield health
    finally:
        await health.leave()  # else watches would hold up the stop, also of a start that fails
        open_calls.end_unread()
        ending = asyncio.get_running_loop().call_later(config.server.drain_s, calls.end_all)
        await server.stop(config.server.drain_s + _LAST_ANSWERS_S)
        ending.cancel()


async def _warm_up(pipeline: Pipeline) -> None:
    """Classify the sample clip with the default model, through all stages, before the server is ready."""

    async def chunks() -> AsyncIterator[bytes]:
        """Yield the sample clip in one chunk."""
        yield SAMPLE_CLIP.read_bytes()

    try:
        request = pipeline.request(Options(), metrics=Metrics())  # counted in no metric of the server
        await pipeline.classify(chunks(), request, ignore_event)
    except (VideoTooLarge, UploadTooLarge) as error:
        logger.warning(
            "warm-up skipped, so the first video will take longer: the sample clip exceeds a limit: %s", error
        )
    pipeline.clear_cache()  # the demo uploads the same clip, and shows what a first answer costs


def _decoders(config: Config, metrics: Metrics, engine: Engine) -> DecodePool:
    """Make the pool of decode workers, which metrics and engine watch."""
    pool = DecodePool(
        config.decode,
        on_worker_failure=lambda failure: metrics.decoder_failures.labels(failure.value).inc(),
        on_work=lambda at_work: engine.set_decoding_cores(at_work * config.decode.threads),
    )
    metrics.watch_decoders(lambda: pool.busy_workers, lambda: pool.protections, lambda: pool.process_ids)
    return pool
