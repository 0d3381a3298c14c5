"""The HTTP port alone, without a server behind it, and requests to it."""

import asyncio
import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge

from tubelet.service.server.listening import resolve
from tubelet.service.server.monitoring import NO_GUARD, HttpGuard, Readiness, open_monitoring

Answer = tuple[int, http.client.HTTPMessage, bytes]


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str) -> Answer:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


@dataclass(frozen=True, slots=True)
class Monitoring:
    """A monitoring server: what it shows, and its port."""

    registry: CollectorRegistry
    readiness: Readiness
    port: int


@contextmanager
def monitoring_at(host: str, guard: HttpGuard = NO_GUARD) -> Iterator[Monitoring]:
    registry, readiness = CollectorRegistry(), Readiness()
    Gauge("answer", "Of everything.", registry=registry).set(42)
    opened = open_monitoring(resolve(host), 0, registry, readiness, guard)
    with asyncio.Runner() as runner:
        yield Monitoring(registry, readiness, runner.run(opened.__aenter__()))
        runner.run(opened.__aexit__(None, None, None))
