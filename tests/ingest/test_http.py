"""Downloads from well-behaved and faulty web servers, over real connections."""

import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from tests.support.http_server import Answer, Request, Site, as_a_whole, by_ranges, redirect, site
from tubelet.service.config.config import FetchConfig, UploadConfig
from tubelet.service.errors import (
    EmptyUpload,
    FetchFailed,
    TubeletError,
    UriChanged,
    UriNotAllowed,
    UriNotFound,
)
from tubelet.service.ingest.fetcher import Fetcher
from tubelet.service.ingest.http import RangedFile
from tubelet.service.ingest.ranged_download import fetch
from tubelet.service.ingest.readers import Streamed
from tubelet.service.types.uri import parse_uri

_LOCAL = (ip_network("127.0.0.0/8"),)
_CONTENT = bytes(number * 7 % 251 for number in range(100_000))
_BLOCK = 4096


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as found:
        yield found


def config(*allow: str, **settings: object) -> FetchConfig:
    return FetchConfig.model_validate(
        {"allow": allow, "allowed_private_networks": _LOCAL, "block_bytes": _BLOCK, "attempts": 1} | settings
    )


async def read(settings: FetchConfig, url: str, start: int = 90_000, end: int = 91_000) -> bytes:
    """Return the bytes [start, end) of a file with ranges; all bytes of one without."""
    async with Fetcher(settings) as fetcher, fetcher.open(parse_uri(url)) as opened:
        if isinstance(opened, Streamed):
            return b"".join([chunk async for chunk in opened.chunks])
        assert isinstance(opened, RangedFile)
        async with fetch(opened, settings, UploadConfig()) as video:
            await video.wait(start, end)
            return b"".join([piece async for piece in opened.read(start, end)])


async def failure(settings: FetchConfig, url: str) -> TubeletError:
    with pytest.raises(TubeletError) as caught:
        await read(settings, url)
    return caught.value


async def test_parts_of_a_file_are_read_by_ranges(web: Site) -> None:
    web.answers["/a.mp4"] = by_ranges(_CONTENT)
    assert await read(config(web.url), f"{web.url}/a.mp4") == _CONTENT[90_000:91_000]
    assert web.asked[0] == ("/a.mp4", "bytes=0-4095")
    assert web.sent_bytes < 3 * _BLOCK


async def test_server_without_ranges_sends_the_whole_file(web: Site) -> None:
    web.answers["/a.mp4"] = as_a_whole(_CONTENT)
    assert await read(config(web.url), f"{web.url}/a.mp4") == _CONTENT
    assert len(web.asked) == 1


async def test_query_and_escapes_arrive_as_they_are(web: Site) -> None:
    web.answers["/a%20b%2Fc~.mp4"] = by_ranges(_CONTENT)
    url = f"{web.url}/a b%2Fc~.mp4?X-Sig=a%2Bb+c&x=%7e"
    assert await read(config(web.url), url) == _CONTENT[90_000:91_000]
    assert {path for path, _ in web.asked} == {"/a%20b%2Fc~.mp4?X-Sig=a%2Bb+c&x=%7e"}


@pytest.mark.parametrize("location", ["/b.mp4", "b.mp4", "{url}/b.mp4#t=10", "//127.0.0.1:{port}/b.mp4"])
async def test_redirects_are_followed_once_and_remembered(web: Site, location: str) -> None:
    web.answers["/a.mp4"] = redirect(location.format(url=web.url, port=web.port))
    web.answers["/b.mp4"] = by_ranges(_CONTENT)
    assert await read(config(web.url), f"{web.url}/a.mp4") == _CONTENT[90_000:91_000]
    assert [path for path, _ in web.asked].count("/a.mp4") == 1


async def test_expired_redirect_target_is_requested_again(web: Site) -> None:
    web.answers["/a.mp4"] = redirect("/b.mp4")
    web.answers["/b.mp4"] = by_ranges(_CONTENT)
    settings = config(web.url, attempts=2)
    async with Fetcher(settings) as fetcher, fetcher.open(parse_uri(f"{web.url}/a.mp4")) as opened:
        assert isinstance(opened, RangedFile)
        async with fetch(opened, settings, UploadConfig()) as video:
            await video.wait(0, 1)
            web.answers["/a.mp4"] = redirect("/c.mp4")
            web.answers["/c.mp4"] = web.answers.pop("/b.mp4")
            await video.wait(50_000, 50_001)
    assert [path for path, _ in web.asked] == ["/a.mp4", "/b.mp4", "/b.mp4", "/a.mp4", "/c.mp4"]


@pytest.mark.parametrize(
    "location",
    [
        "{other}/b.mp4",
        "https://127.0.0.1:{port}/b.mp4",
        "http://user@127.0.0.1:{port}/b.mp4",
        "file:///etc/passwd",
        "s3://bucket/b.mp4",
        "/../b.mp4%2f..",
        "gopher://127.0.0.1/",
    ],
)
async def test_redirects_to_uris_that_are_not_allowed_are_refused(web: Site, location: str) -> None:
    with site() as other:
        other.answers["/b.mp4"] = by_ranges(_CONTENT)
        target = location.format(other=other.url, port=web.port)
        web.answers["/a.mp4"] = redirect(target)
        error = await failure(config(f"{web.url}/a.mp4", "file:///etc"), f"{web.url}/a.mp4")
        assert isinstance(error, UriNotAllowed)
        assert target not in error.message
        assert other.asked == []


async def test_redirect_loop_ends(web: Site) -> None:
    web.answers["/a.mp4"] = redirect("/a.mp4")
    assert "redirects more than 5 times" in (await failure(config(web.url), f"{web.url}/a.mp4")).message
    assert len(web.asked) == 6


async def test_private_addresses_look_like_closed_ports(web: Site) -> None:
    """Addresses in any spelling, behind a name, and after a redirect from an allowed URI."""
    web.answers["/a.mp4"] = by_ranges(_CONTENT)
    names = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "[::ffff:127.0.0.1]", "0"]
    urls = [f"http://{name}:{web.port}/a.mp4" for name in names]
    urls.append("http://169.254.169.254/latest")
    refused = [await failure(config(*urls, allowed_private_networks=()), url) for url in urls]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/a.mp4"
        refused.append(await failure(config(closed), closed))
    refused.append(await failure(config("http://no-such-name.invalid"), "http://no-such-name.invalid/"))
    assert {(type(error), error.message, str(error.metadata)) for error in refused} == {
        (FetchFailed, "the server of the URI cannot be reached or does not answer", "{}")
    }
    assert web.asked == []


async def test_redirect_to_a_private_address_is_not_followed(web: Site) -> None:
    with site() as inner:
        inner.answers["/secret"] = by_ranges(_CONTENT)
        target = inner.url.replace("127.0.0.1", "127.0.0.2")
        web.answers["/a.mp4"] = redirect(f"{target}/secret")
        settings = config(web.url, target, allowed_private_networks=("127.0.0.1/32",))
        assert isinstance(await failure(settings, f"{web.url}/a.mp4"), FetchFailed)
        assert inner.asked == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, UriNotFound),
        (403, UriNotFound),
        (404, UriNotFound),
        (410, UriNotFound),
        (416, EmptyUpload),
        (429, FetchFailed),
        (500, FetchFailed),
        (503, FetchFailed),
        (204, FetchFailed),
        (206, FetchFailed),  # of which range?
    ],
)
async def test_http_statuses_become_errors(web: Site, status: int, kind: type[TubeletError]) -> None:
    web.answers["/a.mp4"] = lambda request: request.reply(status)
    assert type(await failure(config(web.url), f"{web.url}/a.mp4")) is kind


async def test_transient_failure_is_retried(web: Site) -> None:
    good = by_ranges(_CONTENT)

    def now_and_then(request: Request) -> None:
        request.reply(503) if len(web.asked) in (2, 3) else good(request)

    web.answers["/a.mp4"] = now_and_then
    assert await read(config(web.url, attempts=3), f"{web.url}/a.mp4") == _CONTENT[90_000:91_000]


def _after_the_first(then: Answer) -> Answer:
    """Return an answer that is right for the first range, and ``then`` for all others."""
    good = by_ranges(_CONTENT)
    return lambda request: good(request) if request.headers["Range"].startswith("bytes=0-") else then(request)


def _sends(body: bytes, **headers: str) -> Answer:
    return lambda request: request.reply(206, body, **({"ETag": '"1"'} | headers))


def _sends_less(request: Request) -> None:
    request.reply(206, ETag='"1"', Content_Range="bytes 90000-90999/100000", Content_Length="1000")
    request.close_connection = True


@pytest.mark.parametrize(
    ("then", "kind", "says"),
    [
        (by_ranges(_CONTENT, '"2"'), UriChanged, "was replaced while it was read"),
        (by_ranges(_CONTENT[:95_000]), UriChanged, "had 100000 bytes and now has 95000"),
        (
            _sends(bytes(1000), ETag='"2"', Content_Range="bytes 90000-90999/100000"),
            UriChanged,
            "was replaced while it was read",
        ),
        (_sends(bytes(1000), Content_Range="bytes 80000-80999/100000"), FetchFailed, "instead of 90000"),
        (_sends(bytes(9000), Content_Range="bytes 90000-98999/100000"), FetchFailed, "instead of 90000"),
        (
            _sends(bytes(9000), Content_Range="bytes 90000-90999/100000"),
            FetchFailed,
            "more bytes than it announced",
        ),
        (_sends(bytes(900), Content_Range="bytes 90000-90999/100000"), FetchFailed, "100 bytes fewer"),
        (_sends(b"", Content_Range="bytes 90000-89999/100000"), FetchFailed, "sent bytes 90000 to 89999"),
        (
            _sends(b"", Content_Range=f"bytes 90000-{10**30}/100000"),
            FetchFailed,
            "instead of the requested range",
        ),
        (lambda request: request.reply(416, ETag='"1"'), FetchFailed, "instead of the requested range"),
        (lambda request: request.reply(404), UriNotFound, "no such file"),
        (_sends_less, FetchFailed, "broke the connection"),
        (
            _sends(bytes(1000), Content_Range="bytes 90000-90999/100000", Content_Encoding="gzip"),
            FetchFailed,
            "encoded as 'gzip'",
        ),
    ],
)
async def test_answers_that_differ_from_the_request_are_refused(
    web: Site, then: Answer, kind: type[TubeletError], says: str
) -> None:
    web.answers["/a.mp4"] = _after_the_first(then)
    error = await failure(config(web.url), f"{web.url}/a.mp4")
    assert type(error) is kind
    assert says in error.message


async def test_wrong_size_is_detected_where_bytes_are_missing(web: Site) -> None:
    """The server claims 10 GB; bytes count only once they have arrived."""

    def lie(request: Request) -> None:
        wanted = request.range(10**10)
        assert wanted is not None
        body = _CONTENT[slice(*wanted)]
        request.reply(206, body, Content_Range=f"bytes {wanted[0]}-{wanted[1] - 1}/{10**10}")

    web.answers["/a.mp4"] = lie
    with pytest.raises(FetchFailed, match="4096 bytes fewer than it announced"):
        await read(config(web.url, block_bytes=4096), f"{web.url}/a.mp4", 10**9, 10**9 + 4096)


@pytest.mark.parametrize("where", ["before the answer", "in its head", "in its body"])
async def test_stalled_server_ends_in_a_timeout(web: Site, where: str) -> None:
    over = threading.Event()

    def stall(request: Request) -> None:
        if where == "in its head":
            request.wfile.write(b"HTTP/1.1 206 Partial")
        if where == "in its body":
            request.reply(206, _CONTENT[:10], Content_Range="bytes 0-4095/100000", Content_Length="4096")
        over.wait()
        request.close_connection = True

    web.answers["/a.mp4"] = stall
    try:
        error = await failure(config(web.url, timeout_s=0.2), f"{web.url}/a.mp4")
    finally:
        over.set()
    assert isinstance(error, FetchFailed)


async def test_server_that_sends_too_slowly_ends_in_a_timeout(web: Site) -> None:
    """A byte now and then does not reset the timeout."""
    over = threading.Event()

    def drip(request: Request) -> None:
        request.reply(206, Content_Range="bytes 0-4095/100000", Content_Length="4096")
        while not over.wait(0.02):
            request.send(b"x")

    web.answers["/a.mp4"] = drip
    try:
        error = await failure(config(web.url, timeout_s=0.3), f"{web.url}/a.mp4")
    finally:
        over.set()
    assert isinstance(error, FetchFailed)


async def test_host_names_are_resolved(web: Site) -> None:
    web.answers["/a.mp4"] = by_ranges(_CONTENT)
    by_name = web.url.replace("127.0.0.1", "localhost")
    assert by_name != web.url
    assert await read(config(by_name), f"{by_name}/a.mp4") == _CONTENT[90_000:91_000]
