"""The HTTP port: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for probes.

With a certificate it speaks TLS, and it may ask for a token. Probes may go without both: what they ask for is
no secret.
"""

import asyncio
import io
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from socketserver import ThreadingMixIn
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from tubelet.service.server.listening import bind, cannot_listen, choose_port, family

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_MAX_CONNECTIONS = 100  # each has a thread; one more closes the oldest, so that silent ones keep no probe out
_CONNECTION_S = 30.0  # age at which a connection is closed, however slow its client is
_TLS_HANDSHAKE = b"\x16"  # the first byte of a TLS connection; that of an HTTP request is a letter
_OPEN_PAGES = ("/healthz", "/readyz")  # those that need no TLS

TlsContext = Callable[[], ssl.SSLContext]
"""Returns the TLS context for the next connection."""

Refusal = Literal["401 Unauthorized", "403 Forbidden"]


@dataclass(frozen=True, slots=True)
class HttpGuard:
    """What ``/metrics`` asks for, but the other pages do not: TLS, and the token of somebody who may read it.

    ``refuse`` gets the request's ``Authorization`` header, and returns why that is not enough.
    """

    tls: TlsContext | None = None
    refuse: Callable[[str | None], Refusal | None] | None = None


NO_GUARD = HttpGuard()
"""Everybody may read everything, without TLS."""


_REFUSALS: dict[Refusal, tuple[str, list[tuple[str, str]]]] = {
    "401 Unauthorized": (
        "send the header Authorization: Bearer TOKEN, with a token that this server knows",
        [("WWW-Authenticate", "Bearer")],
    ),
    "403 Forbidden": ("the token is of an identity without metrics = true", []),
}

logger = logging.getLogger(__name__)


class State(StrEnum):
    """The states of a server, in the words of ``/readyz``; it takes calls when READY."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    NO_DEVICE = "no device is left"


@dataclass(slots=True)
class Readiness:
    """Holder of the server's current state, which the server updates and ``/readyz`` shows."""

    state: State = State.STARTING

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY


@asynccontextmanager
async def open_monitoring(
    addresses: Sequence[str],
    port: int,
    registry: CollectorRegistry,
    readiness: Readiness,
    guard: HttpGuard = NO_GUARD,
) -> AsyncIterator[int]:
    """Answer HTTP at ``addresses`` until the context ends, and yield the port; ``port`` 0 takes a free one.

    Raises:
        OSError: the port cannot be bound.
    """
    app, servers = make_app(registry, readiness, guard), list[_Server]()
    with ExitStack() as stack:
        port = choose_port(addresses, port, "--metrics-port")
        for address in addresses:
            try:
                servers.append(_Server(address, port, app, guard.tls))
            except OSError as error:
                raise cannot_listen(address, port, "--metrics-port", error) from error
            port = servers[-1].server_port
            stack.callback(servers[-1].server_close)
        threads = [threading.Thread(target=each.serve_forever, name="http", daemon=True) for each in servers]
        for thread in threads:
            thread.start()
        try:
            yield port
        finally:
            await asyncio.gather(*(asyncio.to_thread(each.shutdown) for each in servers))
            for thread in threads:
                thread.join()


def make_app(
    registry: CollectorRegistry, readiness: Readiness, guard: HttpGuard = NO_GUARD
) -> "WSGIApplication":
    """Make the WSGI application with the three pages, each for GET and HEAD."""
    pages: dict[str, WSGIApplication] = {
        "/metrics": make_wsgi_app(registry),
        "/healthz": lambda _, start: _text(start, "200 OK", "alive"),
        "/readyz": lambda _, start: _text(
            start, "200 OK" if readiness.is_ready else "503 Service Unavailable", readiness.state
        ),
    }
    known = ", ".join(pages)

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request for a page; others get 404, methods other than GET and HEAD 405."""
        page, method = pages.get(environ["PATH_INFO"]), environ["REQUEST_METHOD"]
        if environ["PATH_INFO"] not in _OPEN_PAGES:
            if guard.tls and "HTTPS" not in environ:
                return _text(start_response, "403 Forbidden", "this port speaks TLS: use https://")
            if guard.refuse and (refusal := guard.refuse(environ.get("HTTP_AUTHORIZATION"))):
                return _text(start_response, refusal, *_REFUSALS[refusal])
        if page is None:
            return _text(start_response, "404 Not Found", f"not found; there are {known}")
        if method not in ("GET", "HEAD"):
            return _text(
                start_response, "405 Method Not Allowed", "use GET or HEAD", [("Allow", "GET, HEAD")]
            )
        try:
            return _head(page, environ, start_response) if method == "HEAD" else page(environ, start_response)
        except Exception:
            logger.exception("cannot answer %s", environ["PATH_INFO"])
            return _text(start_response, "500 Internal Server Error", "the server's log says why")

    return app


def _head(
    page: "WSGIApplication", environ: "WSGIEnvironment", start_response: "StartResponse"
) -> Iterable[bytes]:
    """Answer HEAD: the headers of GET and the length of its body, without the body."""
    said: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: object = None, /) -> Callable[..., Any]:
        """Record the status and headers of GET instead of sending them."""
        said[:] = status, headers
        return lambda _: None

    length = sum(map(len, page({**environ, "REQUEST_METHOD": "GET"}, start)))
    status, headers = said
    start_response(status, [*headers, ("Content-Length", str(length))])
    return []


def _text(
    start_response: "StartResponse", status: str, text: str, headers: Sequence[tuple[str, str]] = ()
) -> Iterable[bytes]:
    """Answer with one line of plain text."""
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
    return [f"{text}\n".encode()]


class _Handler(WSGIRequestHandler):
    """Handler of one connection. Its errors are the client's, and are not logged."""

    timeout = _CONNECTION_S  # of a read or a write

    def get_environ(self) -> Any:
        """Return the request's variables; ``HTTPS`` tells that it came over TLS, as CGI has it."""
        over_tls = {"HTTPS": "on"} if isinstance(self.connection, ssl.SSLSocket) else {}
        return {**super().get_environ(), **over_tls}

    def log_message(self, format: str, *args: object) -> None:
        """Drop the access log."""

    def get_stderr(self) -> Any:
        """Return a stream that drops what the base class would write to standard error."""
        return io.StringIO()


def _end(connection: socket.socket) -> None:
    """End a connection; the thread that answers on it notices that."""
    with suppress(OSError):  # its client has closed it
        connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingMixIn, WSGIServer):
    """HTTP server at one address, with a thread for each connection."""

    daemon_threads = True
    request_queue_size = _MAX_CONNECTIONS

    def __init__(self, address: str, port: int, app: "WSGIApplication", tls: TlsContext | None) -> None:
        self.address_family = family(address)
        self._tls = tls
        self._accepted_at: dict[socket.socket, float] = {}  # of the open connections
        super().__init__((address, port), _Handler)
        self.set_app(app)

    def server_bind(self) -> None:
        """Bind the socket, without asking a name server for the name of this machine."""
        bind(self.socket, *self.server_address[:2])  # pyright: ignore[reportArgumentType]: TCP's are str, int
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Record when a connection was accepted; close the oldest one if there are too many."""
        if len(self._accepted_at) >= _MAX_CONNECTIONS:
            oldest, _ = min(tuple(self._accepted_at.items()), key=itemgetter(1))
            self._accepted_at.pop(oldest, None)
            _end(oldest)
        self._accepted_at[request] = monotonic()
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer on a connection, by TLS if its client begins so. This runs on the connection's thread."""
        request.settimeout(_CONNECTION_S)
        if self._tls is None or request.recv(1, socket.MSG_PEEK) != _TLS_HANDSHAKE:
            super().finish_request(request, client_address)
            return
        if (accepted_at := self._accepted_at.pop(request, None)) is None:
            return  # a newer connection has ended it
        # The first read makes the handshake.
        with self._tls().wrap_socket(request, server_side=True, do_handshake_on_connect=False) as over_tls:
            self._accepted_at[over_tls] = accepted_at
            try:
                super().finish_request(over_tls, client_address)
            finally:
                self._accepted_at.pop(over_tls, None)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        self._accepted_at.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close the connections that are too old. The base class calls this again and again."""
        overdue = monotonic() - _CONNECTION_S
        for request, accepted_at in tuple(self._accepted_at.items()):
            if accepted_at < overdue:
                _end(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error of a connection for debugging only."""
        logger.debug("a connection of %s failed", client_address, exc_info=True)
