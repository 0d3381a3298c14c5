"""A real HTTP server for tests, on 127.0.0.1, whose files and manners the test decides."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request; ``site`` is what all of them see."""

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
        """Not to the test's output."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """``headers`` have underscores for dashes."""
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
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True
            return
        self.site.sent_bytes += len(body)

    def range(self, size: int) -> tuple[int, int] | None:
        """[start, end) of what is asked for, of a file of this size."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        return None if found is None else (int(found[1]), min(int(found[2]) + 1, size))


@dataclass(slots=True)
class Site:
    """A server: what it answers by path, what it was asked (path, range), how much of bodies it sent."""

    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent_bytes: int = 0
    fallback: Answer | None = None  # where there is no answer of its own

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def site() -> Iterator[Site]:
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
    """As static file servers do: RFC 9110, sections 13 and 14."""

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
            place = f"bytes {start}-{end - 1}/{len(content)}"
            request.reply(206, content[start:end], ETag=etag, Content_Range=place)

    return answer


def as_a_whole(content: bytes) -> Answer:
    """As servers do that know of no ranges."""
    return lambda request: request.reply(200, content)


def redirect(url: str) -> Answer:
    return lambda request: request.reply(302, Location=url)
