"""The HTTP port with a certificate."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.monitoring import Answer, ask, monitoring_at
from tubelet.service.server import monitoring
from tubelet.service.server.monitoring import HttpGuard


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def over_tls(authority: Authority) -> Iterator[int]:
    with serving_over_tls(authority) as port:
        yield port


@contextmanager
def serving_over_tls(authority: Authority) -> Iterator[int]:
    """The port of a server with a certificate."""
    pair = authority.issue("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with monitoring_at("localhost", HttpGuard(lambda: context)) as monitored:
        yield monitored.port


def ask_over_tls(port: int, path: str, method: str, ca: Path) -> Answer:
    context = ssl.create_default_context(cafile=str(ca))
    connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=context)
    connection.request(method, path)
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("path", "status"), [("/metrics", 200), ("/healthz", 200), ("/readyz", 503), ("/", 404)]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_pages_are_answered_over_tls(
    over_tls: int, authority: Authority, path: str, status: int, method: str
) -> None:
    found, _, body = ask_over_tls(over_tls, path, method, authority.ca)
    assert found == status
    assert bool(body) is (method == "GET")


def test_probes_need_no_tls_and_metrics_do(over_tls: int) -> None:
    assert ask(over_tls, "/healthz")[0] == 200
    assert ask(over_tls, "/readyz")[::2] == (503, b"starting\n")
    assert ask(over_tls, "/metrics")[::2] == (403, b"this port speaks TLS: use https://\n")
    assert ask(over_tls, "/")[0] == 403


def test_port_without_a_certificate_does_not_speak_tls(authority: Authority) -> None:
    with monitoring_at("localhost") as monitored, pytest.raises(ssl.SSLError):
        ask_over_tls(monitored.port, "/healthz", "GET", authority.ca)


@pytest.mark.parametrize("begins", [b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x16" + b"x" * 1000])
def test_malformed_handshake_ends_only_its_own_connection(
    over_tls: int, begins: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("localhost", over_tls), timeout=60) as connection:
        connection.sendall(begins)
        with suppress(OSError):  # the server has closed it already
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
    assert ask(over_tls, "/healthz")[0] == 200
    assert capfd.readouterr().err == ""


def test_slow_handshake_is_closed(over_tls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "_CONNECTION_S", 0.0)
    for begins in (b"", b"\x16"):
        with socket.create_connection(("localhost", over_tls), timeout=60) as slow:
            slow.sendall(begins)
            assert slow.recv(1) == b""


def test_connections_over_tls_count_towards_the_limit(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "_MAX_CONNECTIONS", 1)
    context = ssl.create_default_context(cafile=str(authority.ca))
    # A server of its own: another may still be closing the connections of the test before.
    with serving_over_tls(authority) as port:
        connect = partial(socket.create_connection, ("localhost", port), timeout=60)
        for _ in range(3):
            with connect() as plain, context.wrap_socket(plain, server_hostname="localhost") as oldest:
                oldest.sendall(b"GET /healthz HT")
                assert ask_over_tls(port, "/healthz", "GET", authority.ca)[0] == 200
                assert oldest.recv(1) == b""
