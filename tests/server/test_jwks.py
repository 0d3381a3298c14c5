"""The issuer's keys: read from a file or a URL, followed, and kept where they cannot be read."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import jwt
import pytest

from tests.support.http_server import Request, Site, site
from tests.support.issuer import AUDIENCE, ISSUER, Issuer
from tubelet.service.config.jwt import JwtConfig
from tubelet.service.config.problems import BadConfig
from tubelet.service.metrics import Metrics
from tubelet.service.server import jwks
from tubelet.service.server.jwks import IssuerKeys

OLD, NEW = Issuer("-old"), Issuer("-new")
_PATIENCE_S = 60


def reply_with(web: Site, content: bytes, status: int = 200) -> None:
    """Answer every request so from now on."""
    web.answers["/keys"] = lambda request: request.reply(status, content)


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as web:
        reply_with(web, OLD.jwks())
        yield web


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "_INTERVAL_S", 0.02)
    monkeypatch.setattr(jwks, "_PAUSE_S", 0.02)


def keys_at(place: Path | Site, **settings: Any) -> IssuerKeys:
    keys = f"{place.url}/keys" if isinstance(place, Site) else str(place)
    config = JwtConfig(issuer=ISSUER, audience=AUDIENCE, keys=keys, **settings)
    return IssuerKeys(config, Metrics())


def accepts(keys: IssuerKeys, issuer: Issuer) -> bool:
    try:
        return keys.tokens.name_of(issuer.token()) == "alice"
    except ValueError:
        return False


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_a_file_is_followed_and_a_wrong_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(OLD.jwks())
    async with keys_at(file) as keys:
        assert (accepts(keys, OLD), accepts(keys, NEW)) == (True, False)
        caplog.set_level(logging.ERROR)
        file.write_bytes(NEW.jwks()[:100])
        await until(lambda: bool(caplog.records))
        await asyncio.sleep(0.2)  # several more looks
        assert [each.levelname for each in caplog.records] == ["ERROR"]
        assert "it is no set of public keys (JWKS)" in caplog.text
        assert accepts(keys, OLD)
        file.write_bytes(NEW.jwks())
        await until(lambda: accepts(keys, NEW))
        assert not accepts(keys, OLD)


@pytest.mark.parametrize("content", [None, b"", b"{}"])
async def test_a_file_must_be_right_at_the_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadConfig, match=r"server\.access\.jwt\.keys: .*keys\.json"):
        async with keys_at(file):
            pass


async def test_an_unknown_key_makes_a_url_be_read(web: Site) -> None:
    """Long before the keys are due; anybody may send such a token, so that there is a pause between."""
    async with keys_at(web, refresh_s=10_000) as keys:
        assert accepts(keys, OLD)
        await asyncio.sleep(0.2)
        assert len(web.asked) == 1
        reply_with(web, NEW.jwks())
        assert not accepts(keys, NEW)
        await until(lambda: accepts(keys, NEW))
        assert len(web.asked) == 2


async def test_keys_at_a_url_are_kept_while_it_is_down(web: Site, caplog: pytest.LogCaptureFixture) -> None:
    async with keys_at(web, refresh_s=10_000) as keys:
        caplog.set_level(logging.ERROR)
        reply_with(web, b"busy", status=503)
        assert not accepts(keys, NEW)
        await until(lambda: len(web.asked) > 4)
        assert accepts(keys, OLD)
        assert [each.levelname for each in caplog.records] == ["ERROR"]
        assert "503" in caplog.text
        reply_with(web, NEW.jwks())
        await until(lambda: accepts(keys, NEW))


async def test_an_answer_that_is_no_http_is_one_line(web: Site, caplog: pytest.LogCaptureFixture) -> None:
    web.answers["/keys"] = lambda request: request.send(b"garbage\r\n\r\n")
    async with keys_at(web) as keys:
        await until(lambda: len(web.asked) > 3)
        assert [each.levelname for each in caplog.records] == ["ERROR"]
        reply_with(web, OLD.jwks())
        await until(lambda: accepts(keys, OLD))


async def test_a_redirect_is_not_followed(web: Site, caplog: pytest.LogCaptureFixture) -> None:
    """It could lead to where others may replace the keys."""
    web.answers["/other"] = lambda request: request.reply(200, OLD.jwks())
    web.answers["/keys"] = lambda request: request.reply(302, b"", Location=f"{web.url}/other")
    async with keys_at(web) as keys:
        assert not accepts(keys, OLD)
        assert "302" in caplog.text
    assert {path for path, _ in web.asked} == {"/keys"}


async def test_a_server_starts_while_a_url_is_down(web: Site, caplog: pytest.LogCaptureFixture) -> None:
    reply_with(web, b"", status=500)
    async with keys_at(web) as keys:
        assert "the issuer's keys are not known yet" in caplog.text
        assert not accepts(keys, OLD)
        reply_with(web, OLD.jwks())
        await until(lambda: accepts(keys, OLD))


async def test_a_slow_url_holds_up_nobody(
    web: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends a byte now and then, without an end; the event loop goes on."""
    ended = threading.Event()

    def trickle(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        while not ended.is_set():
            request.send(b" ")
            sleep(0.05)

    async with keys_at(web, refresh_s=10_000) as keys:
        monkeypatch.setattr(jwks, "_TIMEOUT_S", 1.0)
        web.answers["/keys"] = trickle
        assert not accepts(keys, NEW)
        await until(lambda: len(web.asked) == 2)
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert accepts(keys, OLD)
        await until(lambda: "no complete answer within 1 s" in caplog.text)
        ended.set()


async def test_an_answer_without_an_end_is_cut(web: Site, caplog: pytest.LogCaptureFixture) -> None:
    reply_with(web, b" " * (2 << 20))
    async with keys_at(web):
        assert "it has more than 1048576 bytes" in caplog.text


@pytest.mark.parametrize("keys", ["http://issuer.example/keys", "http://10.0.0.1/keys", "http:///keys"])
def test_keys_cross_no_network_without_tls(keys: str) -> None:
    with pytest.raises(ValueError, match="keys must come by https://"):
        JwtConfig(issuer=ISSUER, audience=AUDIENCE, keys=keys)


@pytest.mark.parametrize("missing", ["audience", "keys"])
def test_an_issuer_needs_all_settings(missing: str) -> None:
    settings = {"issuer": ISSUER, "audience": AUDIENCE, "keys": "k", missing: ""}
    with pytest.raises(ValueError, match="issuer needs audience and keys"):
        JwtConfig.model_validate(settings)


async def test_the_log_has_no_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(OLD.jwks())
    caplog.set_level(logging.DEBUG)
    async with keys_at(file) as keys:
        with pytest.raises(ValueError, match="malformed"):
            keys.tokens.name_of(jwt.encode({"a": 1}, "x" * 32, "HS256") + "..")
        file.write_text(json.dumps({"keys": "secret-thing"}))
        await until(lambda: "stay" in caplog.text)
    assert "secret-thing" not in caplog.text
