"""The HTTP port, as probes, Prometheus and hostile clients use it."""

import gzip
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from prometheus_client import Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from tests.support.listening import needs_ipv6
from tests.support.monitoring import Monitoring, ask, monitoring_at
from tubelet.service.server import monitoring
from tubelet.service.server.monitoring import State


@pytest.fixture(scope="module")
def monitored() -> Iterator[Monitoring]:
    with monitoring_at("::") as monitored:
        yield monitored


@pytest.fixture
def port(monitored: Monitoring) -> int:
    return monitored.port


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_follow_the_state_of_the_server(monitored: Monitoring, state: State, method: str) -> None:
    monitored.readiness.state = state
    status, _, body = ask(monitored.port, "/readyz", method)
    assert status == (200 if state is State.READY else 503)
    assert body.decode() == (f"{state}\n" if method == "GET" else "")
    assert ask(monitored.port, "/healthz", method)[0] == 200


def test_metrics_page_shows_the_registry(port: int) -> None:
    status, headers, body = ask(port, "/metrics")
    (family,) = text_string_to_metric_families(body.decode())
    assert (status, family.samples[0].value) == (200, 42)
    assert headers["Content-Type"].startswith("text/plain")


def test_metrics_come_in_the_accepted_format_and_encoding(port: int) -> None:
    _, headers, body = ask(
        port, "/metrics", Accept="application/openmetrics-text; version=1.0.0", Accept_Encoding="gzip"
    )
    assert headers["Content-Encoding"] == "gzip"
    (family,) = open_metrics_families(gzip.decompress(body).decode())
    assert family.samples[0].value == 42


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/metrics?name[]=answer"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_head_answers_like_get_without_a_body(port: int, path: str, encoding: str) -> None:
    status, headers, body = ask(port, path, Accept_Encoding=encoding)
    head_status, head_headers, nothing = ask(port, path, "HEAD", Accept_Encoding=encoding)
    del headers["Date"], head_headers["Date"]
    assert (head_status, head_headers.items(), nothing) == (status, headers.items(), b"")
    assert int(headers["Content-Length"]) == len(body)


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metric", "/healthz/x", "/favicon.ico", "/%00", "*"])
def test_other_paths_are_not_found(port: int, path: str) -> None:
    status, _, body = ask(port, path)
    assert (status, body) == (404, b"not found; there are /metrics, /healthz, /readyz\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"])
@pytest.mark.parametrize("path", ["/metrics", "/readyz"])
def test_other_methods_are_not_allowed(port: int, method: str, path: str) -> None:
    status, headers, _ = ask(port, path, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "answers", "refuses"),
    [
        ("::", ("127.0.0.1", "::1"), ()),
        ("0.0.0.0", ("127.0.0.1", "::1"), ()),
        ("localhost", ("127.0.0.1", "::1"), ()),
        ("::1", ("::1",), ("127.0.0.1",)),
        ("127.0.0.1", ("127.0.0.1",), ("::1",)),
    ],
)
def test_server_answers_at_all_addresses_of_the_host(
    host: str,
    answers: tuple[str, ...],
    refuses: tuple[str, ...],
) -> None:
    with monitoring_at(host) as monitored:
        port = monitored.port
        assert [ask(port, "/healthz", host=address)[0] for address in answers] == [200] * len(answers)
        for address in refuses:
            with pytest.raises(ConnectionRefusedError):
                ask(port, "/healthz", host=address)
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/healthz", host=answers[0])


def test_idle_connections_do_not_block_others(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert ask(port, "/healthz")[0] == 200


def test_a_connection_above_the_limit_closes_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """So silent ones cannot keep the probes out."""
    monkeypatch.setattr(monitoring, "_MAX_CONNECTIONS", 2)
    # A server of its own: another may still be closing the connections of the test before.
    with monitoring_at("127.0.0.1") as monitored:
        connect = partial(socket.create_connection, ("127.0.0.1", monitored.port), timeout=60)
        with connect() as first, connect() as second, connect() as third:
            assert first.recv(1) == b""
            assert ask(monitored.port, "/healthz")[0] == 200
            assert second.recv(1) == b""
            third.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert third.recv(8) == b"HTTP/1.0"


def test_slow_connection_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "_CONNECTION_S", 0.0)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as slow:
        slow.sendall(b"GET /metrics HT")
        assert slow.recv(1) == b""


@pytest.mark.parametrize(
    "request_", [b"\0\xff\r\n\r\n", b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
)
def test_malformed_request_ends_only_its_own_connection(
    port: int, request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request_)
        while connection.recv(1 << 16):
            pass
    assert ask(port, "/healthz")[0] == 200
    assert capfd.readouterr().err == ""


def test_metric_that_fails_is_a_logged_server_error(
    monitored: Monitoring, caplog: pytest.LogCaptureFixture
) -> None:
    broken, port = Gauge("broken", "Of nothing.", registry=None), monitored.port
    broken.set_function(lambda: 1 / 0)
    monitored.registry.register(broken)
    assert ask(port, "/metrics")[0] == 500
    assert "ZeroDivisionError" in caplog.text
    monitored.registry.unregister(broken)
    assert ask(port, "/metrics")[0] == 200
