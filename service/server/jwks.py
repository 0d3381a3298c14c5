"""The issuer's public keys (JWKS), which follow their file or URL without a restart."""

import asyncio
import logging
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.request import HTTPRedirectHandler, build_opener

from tubelet.service.config.jwt import JwtConfig
from tubelet.service.config.problems import BadConfig
from tubelet.service.metrics import Metrics
from tubelet.service.rpc.issued_tokens import IssuedTokens
from tubelet.service.server.watched_files import read_regular_file

_INTERVAL_S = 5.0  # between two looks at a file, as of the other files
_PAUSE_S = 10.0  # between two requests of a URL at least: anybody can send a token with an unknown key
_TIMEOUT_S = 10.0
_MAX_BYTES = 1 << 20

logger = logging.getLogger(__name__)


class IssuerKeys:
    """Gives ``tokens`` the keys at ``config.keys``, and new ones as they come, while the context is open."""

    def __init__(self, config: JwtConfig, metrics: Metrics) -> None:
        self.tokens = IssuedTokens(config)
        self._config = config
        self._metrics = metrics
        self._is_url = config.keys.startswith(("https://", "http://"))
        self._content: bytes | None = None  # what is in use
        self._problem = ""  # why the keys cannot be read; empty: they can
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "IssuerKeys":
        """Read the keys. Those at a URL may come later: until then no token of the issuer is accepted.

        Raises:
            BadConfig: a file cannot be read, or holds no keys that fit.
        """
        await self.reload()
        if self._problem and not self._is_url:
            raise BadConfig(f"server.access.jwt.keys: {self._problem}")
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watching is not None
        self._watching.cancel()

    async def reload(self) -> None:
        """Read the keys, and use them. An error is logged, and changes nothing."""
        try:
            self._use(await asyncio.to_thread(self._read))
        except Exception as error:  # also what only looks like HTTP; the next look may succeed
            problem = f"{self._config.keys}: {error}"
            if problem != self._problem:  # one line for each state
                state = (
                    "in use stay, as long as they are not too old" if self._content else "are not known yet"
                )
                logger.error("the issuer's keys %s: %s", state, problem)
            self._problem = problem
        else:
            self._problem = ""
        self._metrics.issuer_keys_reload_failed.set(bool(self._problem))

    def _use(self, content: bytes) -> None:
        """Use the keys in ``content``, unless they are in use."""
        if content == self._content:
            self.tokens.still_good()
            return
        count = self.tokens.use_keys(content)
        self._content = content
        logger.info("keys of the issuer in use: %d, of %s", count, self._config.keys)

    def _read(self) -> bytes:
        """Return what the file or the URL has. It runs on a thread of its own.

        Raises:
            OSError: it cannot be read.
            ValueError: it is too large.
        """
        if not self._is_url:
            return _limited(read_regular_file(Path(self._config.keys)))
        content, end_s = b"", monotonic() + _TIMEOUT_S
        with build_opener(_NoRedirects).open(self._config.keys, timeout=_TIMEOUT_S) as response:
            while piece := response.read1(_MAX_BYTES):
                content = _limited(content + piece)
                if monotonic() > end_s:
                    raise TimeoutError(f"no complete answer within {_TIMEOUT_S:g} s")
        return content

    async def _watch(self) -> None:
        """Reload again and again, until the task is cancelled."""
        while True:
            if self._is_url:
                await asyncio.sleep(_PAUSE_S)
                await self._wanted_or_old()
            else:
                await asyncio.sleep(_INTERVAL_S)
            self.tokens.keys_wanted.clear()
            await self.reload()

    async def _wanted_or_old(self) -> None:
        """Wait until a token needs other keys, or those in use are old; after a failure, wait no more."""
        if not self._problem:
            try:
                async with asyncio.timeout(self._config.refresh_s - _PAUSE_S):
                    await self.tokens.keys_wanted.wait()
            except TimeoutError:
                pass


class _NoRedirects(HTTPRedirectHandler):
    """Makes a redirect an error: it may lead to ``http://``, where others could replace the keys."""

    def redirect_request(self, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]: called by place
        return None


def _limited(content: bytes) -> bytes:
    """Return ``content``.

    Raises:
        ValueError: it is larger than any set of keys.
    """
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES} bytes, which is the limit")
    return content
