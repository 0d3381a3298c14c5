"""Downloads files from web servers (RFC 9110), by ranges if the server supports them.

It uses aiohttp directly: fsspec accepts whatever a server sends for a range, of any size and of any version
of the file.
"""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from urllib.parse import urldefrag, urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from tubelet.service.config.config import FetchConfig
from tubelet.service.errors import EmptyUpload, FetchFailed, UriChanged, UriNotAllowed, UriNotFound
from tubelet.service.ingest.readers import Streamed
from tubelet.service.ingest.ssrf_guard import filtering_socket_factory
from tubelet.service.types.uri import Prefix, Uri, is_covered, parse_uri

_AS_NUMBERS = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class Resolver(AbstractResolver):
    """Resolves names with the system's resolver, at most ``max_names`` at a time."""

    def __init__(self, max_names: int) -> None:
        self._threads = ThreadPoolExecutor(max_names, "names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of ``host``.

        Raises:
            OSError: ``host`` has no address, or cannot be resolved.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _look_up, host, port, family)

    async def close(self) -> None:
        """Stop, without waiting for names that are being resolved."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    """Resolve ``host`` to numeric addresses; blocks."""
    found: list[ResolveResult] = []
    infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    for of_family, _, protocol, _, address in infos:
        number, _ = socket.getnameinfo(address, _AS_NUMBERS)  # with the interface of a link-local address
        found.append(
            ResolveResult(
                hostname=host,
                host=number,
                port=port,
                family=of_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
        )
    return found


_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_ABSENT = (401, 403, 404, 410)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")

_log = logging.getLogger(__name__)


class WebServers:
    """Opens files on the web servers that ``prefixes`` cover, before and after redirects."""

    def __init__(self, config: FetchConfig, prefixes: Iterable[Prefix]) -> None:
        self.timeout_s = config.timeout_s
        self._config = config
        self._prefixes = [prefix for prefix in prefixes if prefix.uri.scheme in ("http", "https")]

    async def __aenter__(self) -> "WebServers":
        self._resolver = Resolver(self._config.max_concurrent_videos)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self._resolver,
                socket_factory=filtering_socket_factory(self._config.allowed_private_networks),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.timeout_s, sock_read=self.timeout_s),
            headers={"User-Agent": "tubelet", "Accept-Encoding": "identity"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._resolver.close()

    @asynccontextmanager
    async def open(self, uri: Uri) -> AsyncIterator["RangedFile | Streamed"]:
        """Open the file at ``uri``: by ranges if the server supports them, else as one stream.

        Raises:
            UriNotFound, UriNotAllowed, FetchFailed, EmptyUpload.
        """
        location, answer = await self.ask(uri, {"Range": _range(0, self._config.block_bytes)})
        async with answer:
            if answer.status == 200:
                yield Streamed(_pieces(answer, deadline=None), _version(answer))
            elif answer.status == 416:
                raise EmptyUpload("the video is empty: its server says that it has no first byte")
            else:
                yield RangedFile(self, uri, location, answer)

    async def ask(self, uri: Uri, headers: dict[str, str]) -> tuple[Uri, aiohttp.ClientResponse]:
        """Request ``uri``, follow redirects; return the URI that answered, and its answer.

        Raises:
            UriNotFound, UriNotAllowed, FetchFailed.
        """
        location = uri
        for _ in range(1 + _MAX_REDIRECTS):
            answer = await self._get(location, headers)
            if answer.status not in _REDIRECTS:
                _check(answer)
                return location, answer
            answer.close()
            location = self._redirected(location, answer.headers.get("Location", ""))
        raise FetchFailed(f"the server of the URI redirects more than {_MAX_REDIRECTS} times")

    async def _get(self, location: Uri, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Request ``location``, without following a redirect.

        Raises:
            FetchFailed: the server cannot be reached, or does not answer in time.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._session.get(
                    URL(location.url, encoded=True), headers=headers, allow_redirects=False
                )
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            _log.info(
                "request to %s failed: %s", location, type(error).__name__ if location.query else repr(error)
            )
            raise FetchFailed("the server of the URI cannot be reached or does not answer") from error

    def _redirected(self, source: Uri, location: str) -> Uri:
        """Parse the ``Location`` header of a redirect from ``source``.

        Raises:
            UriNotAllowed: ``fetch.allow`` does not cover the target.
        """
        try:
            target = parse_uri(urldefrag(urljoin(source.url, location)).url)
        except ValueError:
            target = None
        if target is None or not is_covered(target, self._prefixes):
            _log.info("%s redirects to a URI that fetch.allow does not cover: %s", source, target)
            raise UriNotAllowed("the URI redirects to one that this server may not fetch", field="uri")
        return target


class RangedFile:
    """One version of a file on a web server, a ``Ranged``; ``first`` is the answer with its first range."""

    def __init__(self, servers: WebServers, uri: Uri, location: Uri, first: aiohttp.ClientResponse) -> None:
        """Take the size and version of the file from ``first``.

        Raises:
            FetchFailed: the range in ``first`` does not start with the first byte of the file.
        """
        start, _, self.size_bytes = _content_range(first)
        if start != 0:
            raise FetchFailed(f"the server of the URI sent a range from byte {start} instead of byte 0")
        self._servers = servers
        self._uri = uri
        self._location = location
        self._first: aiohttp.ClientResponse | None = first
        self.etag = _version(first)

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        if self._first is not None and start == 0:
            answer, self._first = self._first, None
        else:
            answer = await self._ask(start, end)
        async with answer:
            left = self._expected_bytes(answer, start, end)
            deadline = asyncio.get_running_loop().time() + self._servers.timeout_s
            async for piece in _pieces(answer, deadline):
                left -= len(piece)
                if left < 0:
                    raise FetchFailed("the server of the URI sent more bytes than it announced")
                yield piece
        if left > 0:
            raise FetchFailed(f"the server of the URI sent {left} bytes fewer than it announced")

    async def _ask(self, start: int, end: int) -> aiohttp.ClientResponse:
        """Request the bytes [start, end) of this version from where the file was found last.

        Raises:
            UriNotFound, UriNotAllowed, FetchFailed.
        """
        headers = {"Range": _range(start, end)}
        if self.etag.startswith('"'):  # a strong validator
            headers["If-Range"] = self.etag
        try:
            self._location, answer = await self._servers.ask(self._location, headers)
        except (UriNotFound, FetchFailed) as error:
            if self._location == self._uri:
                raise
            self._location = self._uri  # the target of a redirect may expire
            raise FetchFailed(error.message) from error
        return answer

    def _expected_bytes(self, answer: aiohttp.ClientResponse, start: int, end: int) -> int:
        """Return the number of bytes that the body of ``answer`` must have.

        Raises:
            UriChanged: the answer is of another version of the file.
            FetchFailed: the answer has another range than [start, end).
        """
        if answer.status == 200 or _version(answer) != self.etag:
            raise UriChanged("the file at the URI was replaced while it was read; try again")
        begins, ends, size_bytes = _content_range(answer)
        if size_bytes != self.size_bytes:
            raise UriChanged(
                f"the file at the URI had {self.size_bytes} bytes and now has {size_bytes}; try again",
                limit=self.size_bytes,
                value=size_bytes,
            )
        if begins != start or not start < ends <= end:
            raise FetchFailed(
                f"the server of the URI sent bytes {begins} to {ends} instead of {start} to {end}"
            )
        return ends - begins


def _check(answer: aiohttp.ClientResponse) -> None:
    """Raise unless ``answer`` has the file, a range of it, or says that the range is empty."""
    if answer.status in _ABSENT:
        answer.close()
        raise UriNotFound("there is no such file, or this server may not read it")
    if answer.status not in (200, 206, 416):
        answer.close()
        raise FetchFailed(f"the server of the URI answered with status {answer.status}", value=answer.status)
    if (coding := answer.headers.get("Content-Encoding", "identity")) != "identity":
        answer.close()
        raise FetchFailed(
            f"the server of the URI sent the file encoded as {coding[:20]!r}, which was not requested"
        )


async def _pieces(answer: aiohttp.ClientResponse, deadline: float | None) -> AsyncGenerator[bytes]:
    """Yield the body of ``answer``; raise FetchFailed at ``deadline``, a time of the loop's clock."""
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                piece = await answer.content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise FetchFailed("the server of the URI broke the connection or is too slow") from error
        if not piece:
            return
        yield piece


def _range(start: int, end: int) -> str:
    """Format the bytes [start, end) as a ``Range`` header."""
    return f"bytes={start}-{end - 1}"


def _content_range(answer: aiohttp.ClientResponse) -> tuple[int, int, int]:
    """Return the start and end of the range in ``answer``, and the size of the whole file."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None or answer.status != 206:
        raise FetchFailed(
            f"the server of the URI answered with status {answer.status} instead of the requested range"
        )
    start, last, size = (int(number) for number in found.groups())
    if not start <= last < size:
        raise FetchFailed(f"the server of the URI sent bytes {start} to {last} of a file of {size}")
    return start, last + 1, size


def _version(answer: aiohttp.ClientResponse) -> str:
    """Return a string that changes with the file (ETag or Last-Modified); empty if the server has none."""
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified", "")
