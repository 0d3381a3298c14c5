"""The identities that may call, which follow their file without a restart."""

import logging
import stat
from collections.abc import Callable
from pathlib import Path

from tubelet.service.config.identities import Identities, parse_identities
from tubelet.service.config.problems import BadConfig
from tubelet.service.config.quotas import NO_QUOTAS, QuotasConfig
from tubelet.service.metrics import Metrics
from tubelet.service.server.monitoring import Refusal
from tubelet.service.server.watched_files import WatchedFiles, read_regular_file
from tubelet.service.wire.bearer import from_headers

logger = logging.getLogger(__name__)


class IdentitiesFile(WatchedFiles[Identities]):
    """The identities in use, which follow the file at ``path`` while the context is open.

    ``defaults`` are the quotas that it does not set. ``on_use`` gets the identities of each reading.
    """

    def __init__(
        self,
        path: Path,
        metrics: Metrics,
        defaults: QuotasConfig = NO_QUOTAS,
        on_use: Callable[[Identities], None] = lambda identities: None,
    ) -> None:
        super().__init__("the identities in use stay", metrics.identities_reload_failed)
        self._path = path
        self._defaults = defaults
        self._on_use = on_use
        self._content = b""  # that of the identities in use

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

    def _read(self, current: Identities | None) -> Identities:
        try:
            content = read_regular_file(self._path)
            is_readable = self._path.stat().st_mode & stat.S_IROTH
        except OSError as error:
            raise BadConfig(
                f"server.access.identities: cannot read {self._path}: {error.strerror}"
            ) from error
        if current is not None and content == self._content:
            return current
        try:
            identities = parse_identities(content, self._path, self._defaults)
        except BadConfig as error:
            raise BadConfig(*(f"server.access.identities: {each}" for each in error.problems)) from error
        if is_readable:
            logger.warning("every user of this machine can read %s; chmod o-r mends it", self._path)
        self._content = content
        return identities

    def _use(self, value: Identities) -> None:
        """Log the identities by which calls that begin from now on are judged, and announce them."""
        self._on_use(value)
        logger.info("identities in use: %d, of %s", len(value.by_name), self._path)
