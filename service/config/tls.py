"""The tables for TLS: the server's files, and how the commands reach a server."""

from pathlib import Path

from pydantic import SecretStr, model_validator

from tubelet.service.config.table import Table
from tubelet.service.types.tls import Tls
from tubelet.service.types.token import Token


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

    token: SecretStr | None = None
    """Token that says who calls. Better in `client.token_file` or the environment: others can read a command
    line."""
    token_file: Path | None = None
    """File of the token, read for each call."""
    plain_token: bool = False
    """Whether the token may be sent without TLS to other machines than this one: where a mesh encrypts."""

    @property
    def chosen_token(self) -> Token | None:
        """The token; None if there is none."""
        text = self.token.get_secret_value() if self.token else ""
        return Token(text, self.token_file, self.plain_token) if text or self.token_file else None

    @property
    def chosen(self) -> Tls | None:
        """The files for TLS; None if nothing here asks for it."""
        tls = Tls(self.ca, self.cert, self.key, self.server_name)
        return tls if self.tls or tls != Tls() else None

    @model_validator(mode="after")
    def _is_complete(self) -> "ClientConfig":
        """Check that certificate and key are set both or not at all, and the token in one way."""
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key need each other; only one of them is set")
        if self.token and self.token_file:
            raise ValueError("token and token_file exclude each other; both are set")
        return self
