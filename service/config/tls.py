"""The tables for TLS: the server's files, and how the commands reach a server."""

from pathlib import Path

from pydantic import model_validator

from tubelet.service.config.table import Table
from tubelet.service.types.tls import Tls


class TlsConfig(Table):
    """The server's certificate. With one, gRPC and HTTP speak TLS 1.2 or newer. Changed files are read again
    within seconds, without a restart."""

    certificate: Path | None = None
    """File (PEM) of the server's certificate, followed by those of its intermediate authorities. Not set: no
    TLS."""
    key: Path | None = None
    """File (PEM) of the certificate's private key, without a passphrase."""
    client_ca: Path | None = None
    """File (PEM) of the authorities that sign clients' certificates. Set, gRPC refuses clients without one:
    on `server.mtls_port` if that is set, else on `server.port`."""

    @model_validator(mode="after")
    def _is_complete(self) -> "TlsConfig":
        """Check that no file is set without those that it needs."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key need each other; only one of them is set")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs a certificate and a key of the server")
        return self


class ClientConfig(Table):
    """How the commands with `--server` reach it. The Python client reads the same variables of the
    environment."""

    tls: bool = False
    """Whether to use TLS. Any other key of this table turns it on, too, and so does an address that begins
    with `https://`."""
    ca: Path | None = None
    """File (PEM) of the authorities that may have signed the server's certificate. Not set: those that gRPC
    comes with."""
    cert: Path | None = None
    """File (PEM) of the client's own certificate, followed by those of its intermediate authorities."""
    key: Path | None = None
    """File (PEM) of that certificate's private key, without a passphrase."""
    server_name: str = ""
    """Name that the server's certificate must have. Empty: the host of the server's address."""

    @property
    def chosen(self) -> Tls | None:
        """The files for TLS; None if nothing here asks for it."""
        tls = Tls(self.ca, self.cert, self.key, self.server_name)
        return tls if self.tls or tls != Tls() else None

    @model_validator(mode="after")
    def _is_complete(self) -> "ClientConfig":
        """Check that certificate and key are set both or not at all."""
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key need each other; only one of them is set")
        return self
