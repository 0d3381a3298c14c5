"""The identities that may call, which follow their file without a restart."""

import asyncio
import logging
import stat
from pathlib import Path

from tubelet.service.config.identities import Identities, parse_identities
from tubelet.service.config.problems import BadConfig
from tubelet.service.metrics import Metrics
from tubelet.service.server.monitoring import Refusal
from tubelet.service.wire.bearer import from_headers

# Time between two looks at the file. The kernel's notices of changes (inotify) would miss those on network
# volumes, and those of files behind links, as Kubernetes mounts Secrets.
_INTERVAL_S = 5.0

logger = logging.getLogger(__name__)


class IdentitiesFile:
    """The identities in use, which follow the file at ``path`` while the context is open."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._path = path
        self._metrics = metrics
        self._content = b""  # what was parsed last, right or wrong
        self._current: Identities | None = None
        self._problem = ""  # what is wrong with the file; empty: nothing
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "IdentitiesFile":
        """Read the file.

        Raises:
            BadConfig: it cannot be read, or what it holds is wrong.
        """
        self._use(*await asyncio.to_thread(self._read))
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watching is not None
        self._watching.cancel()

    def current(self) -> Identities:
        """Return the identities in use; there are some once the context is open."""
        assert self._current is not None
        return self._current

    def refuse_metrics(self, authorization: str | None) -> Refusal | None:
        """Return why the metrics are not for who sends this header; None if they are."""
        try:
            token = from_headers([] if authorization is None else [authorization])
        except ValueError:
            token = None
        identity = None if token is None else self.current().of_token(token)
        if identity is None:
            return "401 Unauthorized"
        return None if identity.allowed.metrics else "403 Forbidden"

    async def reload(self) -> None:
        """Read the file; use what it holds if it has changed. An error is logged, and changes nothing."""
        try:
            self._use(*await asyncio.to_thread(self._read))
        except BadConfig as error:
            if str(error) != self._problem:  # one line for each state of the file
                logger.error("the identities in use stay: %s", error)
            self._problem = str(error)
        except Exception as error:  # the next look may succeed
            logger.exception("the identities in use stay")
            self._problem = str(error)
        else:
            self._problem = ""
        self._metrics.identities_reload_failed.set(bool(self._problem))

    def _read(self) -> tuple[bytes, Identities]:
        """Read and check the file; what has not changed is not parsed again.

        Raises:
            BadConfig: it cannot be read, or what it holds is wrong.
        """
        try:
            content = self._path.read_bytes()
            is_readable = self._path.stat().st_mode & stat.S_IROTH
        except OSError as error:
            raise BadConfig(
                f"server.access.identities: cannot read {self._path}: {error.strerror}"
            ) from error
        if self._current is not None and content == self._content:
            return content, self._current
        try:
            identities = parse_identities(content, self._path)
        except BadConfig as error:
            raise BadConfig(*(f"server.access.identities: {each}" for each in error.problems)) from error
        if is_readable:
            logger.warning("every user of this machine can read %s; chmod o-r mends it", self._path)
        return content, identities

    def _use(self, content: bytes, identities: Identities) -> None:
        """Let calls that begin from now on be judged by ``identities``."""
        if identities is not self._current:
            logger.info("identities in use: %d, of %s", len(identities.by_name), self._path)
        self._content, self._current = content, identities

    async def _watch(self) -> None:
        """Reload again and again, until the task is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self.reload()
