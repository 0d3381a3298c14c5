"""The server's certificate in use, for gRPC and HTTP, which follows its files without a restart.

gRPC asks for it at each handshake, HTTP for each connection. Both get what was read and checked last: a
handshake reads no file, and files that are being replaced, or are wrong, change nothing.
"""

import asyncio
import logging
import ssl
from datetime import UTC, datetime
from functools import partial
from typing import Any

import grpc

from tubelet.service.config.problems import BadConfig
from tubelet.service.config.tls import TlsConfig
from tubelet.service.metrics import Metrics
from tubelet.service.server.certificates import Credentials, read_credentials

# Time between two looks at the files. The kernel's notices of changes (inotify) would miss those on network
# volumes, and those of files behind links, as Kubernetes mounts Secrets.
_INTERVAL_S = 5.0

logger = logging.getLogger(__name__)


class ServerTls:
    """The server's certificate in use, which follows its files while the context is open."""

    def __init__(self, config: TlsConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._current: Credentials | None = None
        self._problem = ""  # what is wrong with the files; empty: nothing
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "ServerTls":
        """Read the files.

        Raises:
            BadConfig: a file cannot be read, or what it holds cannot be served.
        """
        self._use(await asyncio.to_thread(read_credentials, self._config, None))
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watching is not None
        self._watching.cancel()

    def grpc_credentials(self, *, with_client_ca: bool) -> grpc.ServerCredentials:
        """Make the credentials of one gRPC port at one address; with ``with_client_ca`` it is for mTLS.

        Each port at each address needs its own: gRPC keeps what it is given, and asks whether it is still
        right.
        """
        given = self._credentials

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """Return the files if they are others than gRPC has. It calls this on a thread of its own."""
            nonlocal given
            current = self._credentials
            if current is given:
                return None
            given = current
            return current.grpc_configuration(with_client_ca=with_client_ca)

        configuration = given.grpc_configuration(with_client_ca=with_client_ca)
        # The types of grpc do not declare that None means no change.
        fetcher: Any = fetch
        return grpc.dynamic_ssl_server_credentials(configuration, fetcher, with_client_ca)

    def http_context(self) -> ssl.SSLContext:
        """Return the context for the next HTTP connection; it asks for no certificate of the client."""
        return self._credentials.http

    async def reload(self) -> None:
        """Read the files; serve what they hold if it has changed. An error is logged, and changes nothing."""
        try:
            found = await asyncio.to_thread(read_credentials, self._config, self._current)
        except BadConfig as error:
            if str(error) != self._problem:  # one line for each state of the files
                logger.error("the certificate in use stays: %s", error)
            self._problem = str(error)
        except Exception as error:  # the next look may succeed
            logger.exception("the certificate in use stays")
            self._problem = str(error)
        else:
            self._problem = ""
            if found is not self._current:
                self._use(found)
        self._metrics.certificate_reload_failed.set(bool(self._problem))

    @property
    def _credentials(self) -> Credentials:
        """The credentials in use; there are some once the context is open."""
        assert self._current is not None
        return self._current

    def _use(self, credentials: Credentials) -> None:
        """Serve ``credentials`` from the next handshake on."""
        self._current = credentials
        for name, expiry in credentials.expiries().items():
            self._metrics.certificate_expiry.labels(name).set_function(partial(_seconds_until, expiry))
        logger.info("certificate in use: %s", credentials.description)

    async def _watch(self) -> None:
        """Reload again and again, until the task is cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self.reload()


def _seconds_until(time: datetime) -> float:
    """Return the seconds until ``time``, negative once it is over."""
    return (time - datetime.now(UTC)).total_seconds()
