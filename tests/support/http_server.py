"""A real HTTP server for tests, on 127.0.0.1; the test sets its files and behaviour."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """The handler of one request; all requests share ``site``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    site: "Site"

    def do_GET(self) -> None:
        self.site.asked.append((self.path, self.headers.get("Range", "")))
        answer = self.site.answers.get(self.path.partition("?")[0], self.site.fallback)
        if answer is None:
            self.reply(404)
        else:
            answer(self)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, to keep the output of tests clean."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send an answer; the names in ``headers`` have underscores instead of dashes."""
        self.send_response(status)
        named = {"Content-Length": str(len(body))} | {
            key.replace("_", "-"): value for key, value in headers.items()
        }
        for name, value in named.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send(body)

    def send(self, body: bytes) -> None:
        """Send bytes of the body, and count them in the site."""
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True
            return
        self.site.sent_bytes += len(body)

    def range(self, size: int) -> tuple[int, int] | None:
        """Return the requested range [start, end) of a file of ``size`` bytes, or None."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        return None if found is None else (int(found[1]), min(int(found[2]) + 1, size))


@dataclass(slots=True)
class Site:
    """A server: its answers by path, the requests it got (path, range), the bytes of bodies it sent."""

    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent_bytes: int = 0
    fallback: Answer | None = None  # for paths without an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def site() -> Iterator[Site]:
    """Serve on a free port until the context ends."""
    handler = type("Handler", (Request,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    found = handler.site = Site(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="website")
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def by_ranges(content: bytes, etag: str = '"1"') -> Answer:
    """Answer with ``content`` by ranges, as static file servers do (RFC 9110, sections 13 and 14)."""

    def answer(request: Request) -> None:
        wanted = request.range(len(content))
        if request.headers.get("If-Match", etag) != etag:
            request.reply(412)
        elif wanted is None or request.headers.get("If-Range", etag) != etag:
            request.reply(200, content, ETag=etag, Accept_Ranges="bytes")
        elif wanted[0] >= len(content):
            request.reply(416, Content_Range=f"bytes */{len(content)}")
        else:
            start, end = wanted
            content_range = f"bytes {start}-{end - 1}/{len(content)}"
            request.reply(206, content[start:end], ETag=etag, Content_Range=content_range)

    return answer


def as_a_whole(content: bytes) -> Answer:
    """Answer with all of ``content``, as servers without ranges do."""
    return lambda request: request.reply(200, content)


def redirect(url: str) -> Answer:
    """Answer with a redirect to ``url``."""
    return lambda request: request.reply(302, Location=url)
