"""What clients can hold whom the server does not know: calls without an end, connections, handshakes."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.support.certificates import Authority
from tests.support.identities import TOKENS, write_identities
from tests.support.raw_http2 import CLASSIFY, LIST_MODELS, Answer, RawHttp2, message
from tests.support.running_server import Served, serving
from tubelet.service.server import app

ALICE = ((b"authorization", f"Bearer {TOKENS['alice']}".encode()),)
CHECK, WATCH = b"/grpc.health.v1.Health/Check", b"/grpc.health.v1.Health/Watch"
REFLECT = b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
OK, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, UNAUTHENTICATED = 0, 3, 5, 8, 16

_MAX_UNREAD = 64  # calls of which the server waits for a message, of those that need no token


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server with TLS that knows who calls."""

    served: Served
    context: ssl.SSLContext

    def connect(self) -> RawHttp2:
        """Connect, and wait for the server's settings."""
        connection = RawHttp2(self.served.server.port, self.context)
        assert connection.read()
        return connection


@contextmanager
def guarding(folder: Path, **server: Any) -> Iterator[Guarded]:
    """Serve those in a file by TLS."""
    file, authority = write_identities(folder / "identities.toml"), Authority(folder)
    pair = authority.issue("localhost")
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.set_alpn_protocols(["h2"])
    tls = {"certificate": str(pair.certificate), "key": str(pair.key)}
    with serving(server={"access": {"identities": str(file)}, "tls": tls, **server}) as served:
        yield Guarded(served, context)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server that lets two calls watch its health."""
    limits = {"max_other_calls": 4, "max_videos_in_flight": 200}
    with guarding(tmp_path_factory.mktemp("guarded"), **limits) as guarded:
        yield guarded


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server that waits a second for a handshake, and ends connections after half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "_HANDSHAKE_MS", 1000)
        with guarding(tmp_path_factory.mktemp("hasty"), max_connection_age_s=0.5) as hasty:
            yield hasty


def ask(connection: RawHttp2, path: bytes, content: bytes = b"", *headers: tuple[bytes, bytes]) -> Answer:
    """Make a call of one message; return its answer."""
    stream = connection.call(path, headers)
    connection.send(stream, message(content), is_end=True)
    return connection.answer(stream)


@pytest.mark.parametrize("method", ["Classify", "ClassifyStreaming", "Explain", "ListModels", "GetModel"])
def test_who_is_not_known_is_refused_before_any_message(guarded: Guarded, method: str) -> None:
    """Also where gRPC would read the message itself: the client of this call never sends one."""
    with guarded.connect() as connection:
        stream = connection.call(f"/tubelet.v1.VideoClassifier/{method}".encode())
        assert connection.answer(stream).status == UNAUTHENTICATED
        assert ask(connection, LIST_MODELS, b"", *ALICE).status == OK


def test_half_a_message_is_refused_as_well(guarded: Guarded) -> None:
    with guarded.connect() as connection:
        stream = connection.call(CLASSIFY)
        connection.send(stream, message(b"x" * 1000, claims=1 << 31))
        assert connection.answer(stream).status == UNAUTHENTICATED


@pytest.mark.parametrize("path", [CHECK, WATCH, REFLECT])
def test_open_calls_without_a_message_keep_nobody_out(guarded: Guarded, path: bytes) -> None:
    """The oldest of them end; sound calls are answered, those of health among them."""
    with guarded.connect() as connection, guarded.connect() as other:
        streams = [connection.call(path) for _ in range(_MAX_UNREAD + 1)]
        first = connection.answer(streams[0])
        assert first.status == RESOURCE_EXHAUSTED
        assert b"a newer call ended this one" in first.headers[b"grpc-message"]
        assert not any(connection.answers[each].is_over for each in streams[1:])
        assert ask(connection, LIST_MODELS, b"", *ALICE).status == OK
        health = ask(other, CHECK)
        assert health_pb2.HealthCheckResponse.FromString(health.data[5:]).status == 1
        more = [other.call(path) for _ in range(_MAX_UNREAD)]
        assert connection.answer(streams[-1]).status == RESOURCE_EXHAUSTED
        assert not any(other.answers[each].is_over for each in more)


def test_the_newest_watches_go_on(guarded: Guarded) -> None:
    with guarded.connect() as connection:
        streams = list[int]()
        for _ in range(3):
            streams.append(connection.call(WATCH))
            connection.send(streams[-1], message(b""), is_end=True)
            while not connection.answers[streams[-1]].data:
                assert connection.read()
        assert connection.answer(streams[0]).status == RESOURCE_EXHAUSTED
        assert [connection.answers[each].is_over for each in streams[1:]] == [False, False]


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [
        (CHECK, b"\xff\xff\xff", INVALID_ARGUMENT),
        (WATCH, b"\xff\xff\xff", INVALID_ARGUMENT),
        (REFLECT, b"\xff\xff\xff", INVALID_ARGUMENT),
        (CHECK, health_pb2.HealthCheckRequest(service="nobody").SerializeToString(), NOT_FOUND),
        (CHECK, bytes(300_000), INVALID_ARGUMENT),
    ],
)
def test_malformed_open_calls(guarded: Guarded, path: bytes, content: bytes, code: int) -> None:
    with guarded.connect() as connection:
        assert ask(connection, path, content).status == code
        stream = connection.call(path, is_end=True)
        assert connection.answer(stream).status == (OK if path == REFLECT else INVALID_ARGUMENT)


def test_reflection_answers_a_stream_of_messages(guarded: Guarded) -> None:
    asked = (
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="nobody"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="tubelet.v1.VideoClassifier"),
    )
    with guarded.connect() as connection:
        stream = connection.call(REFLECT)
        for each in asked:
            connection.send(stream, message(each.SerializeToString()), is_end=each is asked[-1])
        answer = connection.answer(stream)
        assert answer.status == OK
        parts = (b"grpc.health.v1.Health", b"nobody", b"ClassifyStreaming")
        places = [answer.data.find(part) for part in parts]
        assert -1 not in places
        assert places == sorted(places)


def test_connections_that_do_not_begin_are_closed(hasty: Guarded) -> None:
    """They send nothing, a part of a TLS handshake, no TLS, or no HTTP/2 after the handshake."""
    tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
    with ExitStack() as stack:

        def connect() -> socket.socket:
            connection = socket.create_connection(("127.0.0.1", hasty.served.server.port), timeout=60)
            return stack.enter_context(connection)

        def connect_by_tls() -> socket.socket:
            return stack.enter_context(hasty.context.wrap_socket(connect(), server_hostname="localhost"))

        begins = [(connect(), each) for each in (b"", tls[:1], tls, b"GET / HTTP/1.1\r\n")]
        begins += [(connect_by_tls(), each) for each in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")]
        for connection, first in begins:
            connection.sendall(first)
        for connection, _ in begins:
            _until_closed(connection)


def _until_closed(connection: socket.socket) -> bytes:
    """Read until the server closes the connection; return what came."""
    came = b""
    try:
        while piece := connection.recv(1 << 16):
            came += piece
    except ConnectionError:
        pass
    return came


def test_connections_above_the_limit_are_closed() -> None:
    with serving(server={"max_connections": 2}) as served:
        port = served.server.port
        with RawHttp2(port) as first, RawHttp2(port) as second:
            assert first.read()
            assert second.read()
            with socket.create_connection(("127.0.0.1", port), timeout=60) as third:
                assert not _until_closed(third)
            assert ask(first, CHECK).status == OK
        while True:  # there is room again once the server has noticed that they are closed
            with RawHttp2(port) as later:
                if later.read():
                    break


def test_idle_connections_end_with_their_age(hasty: Guarded) -> None:
    with RawHttp2(hasty.served.server.port, hasty.context) as connection:
        while not connection.is_over:
            connection.read()


def test_calls_without_a_message_do_not_delay_the_end() -> None:
    """A server drains for 60 s here. Calls of one method begin in their order."""
    forever = threading.Event()

    def never() -> Iterator[bytes]:
        forever.wait(100)
        yield from ()

    with serving() as served, grpc.insecure_channel(served.target) as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        methods = [channel.stream_stream(path.decode()) for path in (CHECK, WATCH, REFLECT)]
        held = [method(never()) for method in methods]
        for method in methods:
            assert next(method(iter([b""]))) is not None
        try:
            served.drain()
            assert [each.code() for each in held] == [grpc.StatusCode.UNAVAILABLE] * 3
            served.wait()
        finally:
            forever.set()
