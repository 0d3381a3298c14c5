"""The server's certificate in use, for gRPC and HTTP, which follows its files without a restart.

gRPC asks for it at each handshake, HTTP for each connection. Both get what was read and checked last: a
handshake reads no file, and files that are being replaced, or are wrong, change nothing.
"""

import logging
import ssl
from datetime import UTC, datetime
from functools import partial
from typing import Any

import grpc

from tubelet.service.config.tls import TlsConfig
from tubelet.service.metrics import Metrics
from tubelet.service.server.certificates import Credentials, read_credentials
from tubelet.service.server.watched_files import WatchedFiles

logger = logging.getLogger(__name__)


class ServerTls(WatchedFiles[Credentials]):
    """The server's certificate in use, which follows its files while the context is open."""

    def __init__(self, config: TlsConfig, metrics: Metrics) -> None:
        super().__init__("the certificate in use stays", metrics.certificate_reload_failed)
        self._config = config
        self._metrics = metrics

    def grpc_credentials(self, *, with_client_ca: bool) -> grpc.ServerCredentials:
        """Make the credentials of one gRPC port at one address; with ``with_client_ca`` it is for mTLS.

        Each port at each address needs its own: gRPC keeps what it is given, and asks whether it is still
        right.
        """
        given = self.current()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """Return the files if they are others than gRPC has. It calls this on a thread of its own."""
            nonlocal given
            current = self.current()
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
        return self.current().http

    def _read(self, current: Credentials | None) -> Credentials:
        return read_credentials(self._config, current)

    def _use(self, value: Credentials) -> None:
        """Tell metrics and log of the certificate that handshakes use from now on."""
        for name, expiry in value.expiries().items():
            self._metrics.certificate_expiry.labels(name).set_function(partial(_seconds_until, expiry))
        logger.info("certificate in use: %s", value.description)


def _seconds_until(time: datetime) -> float:
    """Return the seconds until ``time``, negative once it is over."""
    return (time - datetime.now(UTC)).total_seconds()
