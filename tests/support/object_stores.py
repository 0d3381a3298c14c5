"""Object stores on this machine: S3 by moto, Google Cloud Storage by its emulator."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from s3fs import S3FileSystem


@contextmanager
def s3_server(bucket: str) -> Iterator[dict[str, Any]]:
    """Run a server with the interface of S3 that has a bucket; yield fsspec's options for it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options: dict[str, Any] = {"endpoint_url": f"http://{host}:{port}", "key": "key", "secret": "secret"}
    try:
        # All servers of a process share their buckets.
        urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
        S3FileSystem(**options, skip_instance_cache=True).mkdir(bucket)
        yield options
    finally:
        server.stop()


_EXPIRED = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>ExpiredToken</Code>"
    b"<Message>The provided token has expired.</Message></Error>"
)


class ExpiringStore(ThreadingHTTPServer):
    """A server in front of one with the interface of S3, whose credentials expire after ``left`` objects.

    From then on it answers as S3 does: 400, and ``ExpiredToken`` where the answer has a body.
    """

    def __init__(self, behind: str, left: int) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.behind = behind
        self.left = left


class _Forward(BaseHTTPRequestHandler):
    """Forwards requests that read."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Read an object, or a list of them."""
        assert isinstance(self.server, ExpiringStore)
        if self.command == "GET" and "list-type" not in self.path:
            self.server.left -= 1
        if self.server.left < 0:
            self._answer(400, {"Content-Type": "application/xml"}, _EXPIRED)
            return
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        asked = Request(self.server.behind + self.path, headers=headers, method=self.command)
        try:
            with urlopen(asked) as answer:
                self._answer(answer.status, dict(answer.headers), answer.read())
        except HTTPError as error:
            self._answer(error.code, dict(error.headers), error.read())

    def do_HEAD(self) -> None:
        """Read the metadata of an object."""
        self.do_GET()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send an answer, to HEAD without its body."""
        self.send_response(status)
        for name, value in headers.items():
            if name not in ("Connection", "Date", "Server", "Transfer-Encoding"):
                self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


@contextmanager
def expiring_store(behind: str, left: int) -> Iterator[ExpiringStore]:
    """Run a store in front of the one at ``behind`` whose credentials expire after ``left`` objects."""
    with ExpiringStore(behind, left) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def gs_server(bucket: str) -> Iterator[dict[str, Any]]:
    """Run an emulator of Cloud Storage that has a bucket; yield fsspec's options for it.

    It ignores preconditions.
    """
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket=bucket)
    server.start()
    try:
        port = server._api._httpd.socket.getsockname()[1]
        yield {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon"}
    finally:
        server.stop()
