"""Objects in S3 and Google Cloud Storage: their real clients, and a server with both interfaces."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.support.http_server import Request, Site, site
from tests.support.running_server import serving
from tests.support.sample_clip import panning_clip
from tubelet.service.client import Client
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
from tubelet.service.ingest.object_store import StoredObject
from tubelet.service.ingest.ranged_download import fetch
from tubelet.service.types.request import Options, WholeVideo
from tubelet.service.types.uri import parse_uri
from tubelet.service.types.video import NS_PER_S

_CONTENT = bytes(number * 7 % 251 for number in range(100_000))
_BLOCK = 4096
_NAMES = ["clip.mp4", "a folder/50 % + ü.mp4"]


@dataclass(slots=True)
class Store:
    """The objects of the bucket ``clips`` by name, each with a version number."""

    site: Site
    objects: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def put(self, name: str, content: bytes) -> None:
        version = self.objects.get(name, (0, b""))[0] + 1
        self.objects[name] = version, content

    def s3(self, request: Request) -> None:
        """Answer HEAD and GET of an object and an empty list, as S3 does (S3 API reference)."""
        path, query = _split(request)
        if "list-type" in query:
            listing = b'<?xml version="1.0"?><ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>'
            return request.reply(200, listing, Content_Type="application/xml")
        found = self.objects.get(path.removeprefix("/clips/")) if path.startswith("/clips/") else None
        if found is None:
            return request.reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
        version, content = found
        etag = f'"{version}"'
        if request.headers.get("If-Match", etag) != etag:
            return request.reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        return _send(request, content, ETag=etag)

    def gs(self, request: Request) -> None:
        """Answer metadata, media and an empty list, as Cloud Storage does (JSON API reference)."""
        path, query = _split(request)
        name = path.partition("/b/clips/o/")[2]
        if not name:
            return request.reply(200, b"{}", Content_Type="application/json")
        version, content = self.objects.get(name, (0, b""))
        wanted = query.get("generation", [str(version)])[0]
        if not version or wanted != str(version):
            return request.reply(404, b'{"error": {"code": 404}}', Content_Type="application/json")
        if query.get("alt") == ["media"] or "/download/" in path:
            return _send(request, content)
        found = {"bucket": "clips", "name": name, "size": str(len(content)), "generation": str(version)}
        return request.reply(200, json.dumps(found).encode(), Content_Type="application/json")


def _split(request: Request) -> tuple[str, dict[str, list[str]]]:
    parts = urlsplit(request.path)
    return unquote(parts.path), parse_qs(parts.query)


def _send(request: Request, content: bytes, **headers: str) -> None:
    wanted = request.range(len(content))
    if wanted is None:
        return request.reply(200, content, **headers)
    start, end = wanted
    part = f"bytes {start}-{end - 1}/{len(content)}"
    return request.reply(206, content[start:end], Content_Range=part, **headers)


@dataclass(frozen=True, slots=True)
class Way:
    """A store and its configuration."""

    scheme: str
    store: Store
    settings: dict[str, object]

    @property
    def config(self) -> FetchConfig:
        return FetchConfig.model_validate(self.settings)

    def uri(self, name: str) -> str:
        return f"{self.scheme}://clips/{name.replace('%', '%25').replace(' ', '%20')}"


@pytest.fixture(params=["s3", "gs"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    with site() as web:
        store = Store(web)
        web.fallback = getattr(store, request.param)
        options = {
            "s3": {"endpoint_url": web.url, "key": "key", "secret": "secret"},
            "gs": {"endpoint_url": web.url, "token": "anon"},
        }
        allow = [f"{request.param}://clips"]
        settings = {"allow": allow, "options": options, "block_bytes": _BLOCK, "attempts": 1, "timeout_s": 60}
        yield Way(request.param, store, settings)


async def read(way: Way, name: str, start: int, end: int) -> bytes:
    """Read the object as a decode worker does, through a file with holes."""
    async with Fetcher(way.config) as fetcher, fetcher.open(parse_uri(way.uri(name))) as opened:
        assert isinstance(opened, StoredObject)
        async with fetch(opened, way.config, UploadConfig()) as video:
            await video.wait(start, end)
            return b"".join([piece async for piece in opened.read(start, end)])


async def failure(way: Way, name: str) -> TubeletError:
    with pytest.raises(TubeletError) as caught:
        await read(way, name, 0, 10)
    return caught.value


@pytest.mark.parametrize("name", _NAMES)
async def test_parts_of_an_object_are_read_by_ranges(way: Way, name: str) -> None:
    way.store.put(name, _CONTENT)
    assert await read(way, name, 90_000, 91_000) == _CONTENT[90_000:91_000]
    assert way.store.site.sent_bytes < len(_CONTENT) / 4


async def test_missing_objects_are_not_found(way: Way) -> None:
    assert isinstance(await failure(way, "nothing.mp4"), UriNotFound)


async def test_object_without_bytes_is_an_empty_upload(way: Way) -> None:
    way.store.put("empty.mp4", b"")
    assert isinstance(await failure(way, "empty.mp4"), EmptyUpload)


async def test_versions_of_an_object_are_never_mixed(way: Way) -> None:
    way.store.put("clip.mp4", _CONTENT)
    async with Fetcher(way.config) as fetcher, fetcher.open(parse_uri(way.uri("clip.mp4"))) as opened:
        assert isinstance(opened, StoredObject)
        way.store.put("clip.mp4", bytes(len(_CONTENT)))
        with pytest.raises(UriChanged, match="while it was read"):
            async for _ in opened.read(0, 100):
                pass


async def test_bucket_that_is_not_allowed_gets_no_request(way: Way) -> None:
    async with Fetcher(way.config) as fetcher:
        with pytest.raises(UriNotAllowed):
            fetcher.check(parse_uri(f"{way.scheme}://others/clip.mp4"))
    assert way.store.site.asked == []


async def test_failing_store_is_reported_as_unavailable(way: Way) -> None:
    way.store.site.fallback = lambda request: request.reply(400, b"no")
    assert isinstance(await failure(way, "clip.mp4"), FetchFailed)


def test_object_gets_the_same_answer_as_its_upload(way: Way) -> None:
    clip = panning_clip(30.0)
    way.store.put("clip.mp4", clip)
    options = Options(windowing=WholeVideo(), ranges_ns=((20 * NS_PER_S, 22 * NS_PER_S),))
    settings = way.settings | {"block_bytes": 16384}
    with (
        serving(fetch=settings, engine={"precision": "fp32", "cache_bytes": 0}) as served,
        Client(served.target) as client,
    ):
        fetched, uploaded = client.classify(way.uri("clip.mp4"), options), client.classify(clip, options)
    assert [label.name for label in fetched.labels] == [label.name for label in uploaded.labels]
    assert fetched.metadata.frames == uploaded.metadata.frames
    assert 0 < fetched.fetched_bytes < len(clip)
