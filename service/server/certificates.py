"""The server's certificate and key, and the authorities of its clients: read from their files and checked."""

import os
import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID

from tubelet.service.config.problems import BadConfig
from tubelet.service.config.tls import TlsConfig
from tubelet.service.server.certificate_keys import (
    check_handshake,
    check_key,
    unfit_authority,
    unfit_certificate,
)
from tubelet.service.server.watched_files import read_regular_file
from tubelet.service.wire.pem import check_certificates, load_pair

Role = Literal["server", "client_ca"]
"""Whose certificate it is, as metrics name it: the server's own, or the authorities' of its clients."""


@dataclass(frozen=True, slots=True)
class PemFiles:
    """The content of the files; ``client_ca`` is empty where no file is set."""

    certificate: bytes
    key: bytes
    client_ca: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files that were found right: their certificates, the server's own first, and the context for HTTP."""

    files: PemFiles
    chain: list[x509.Certificate]
    client_authorities: list[x509.Certificate]
    http: ssl.SSLContext
    description: (
        str  # the server's certificate in a line: whom it is for, who signed it, until when it is valid
    )

    def grpc_configuration(self, *, with_client_ca: bool) -> grpc.ServerCertificateConfiguration:
        """Return the files as gRPC takes them, with the authorities of clients or without."""
        pair = self.files.key, self.files.certificate
        return grpc.ssl_server_certificate_configuration(
            [pair], self.files.client_ca if with_client_ca else None
        )

    def expiries(self) -> dict[Role, datetime]:
        """Return when the server's certificate, and the first of its clients' authorities, expires."""
        found: dict[Role, datetime] = {"server": self.chain[0].not_valid_after_utc}
        if valid := [each for each in self.client_authorities if not _has_expired(each)]:
            found["client_ca"] = min(each.not_valid_after_utc for each in valid)
        return found


def read_credentials(config: TlsConfig, known: Credentials | None) -> Credentials:
    """Read and check the files; return ``known`` if they hold the same.

    Raises:
        BadConfig: a file cannot be read, or what it holds cannot be served.
    """
    assert config.certificate is not None
    assert config.key is not None
    files = PemFiles(
        _content("certificate", config.certificate),
        _content("key", config.key),
        b"" if config.client_ca is None else _content("client_ca", config.client_ca),
    )
    return known if known is not None and known.files == files else _checked(files, config)


def _content(key: str, path: Path) -> bytes:
    """Return what the file of ``server.tls.<key>`` holds.

    Raises:
        BadConfig: the file cannot be read.
    """
    try:
        return read_regular_file(path)
    except OSError as error:
        raise BadConfig(f"server.tls.{key}: cannot read {path}: {error.strerror}") from error


def _checked(files: PemFiles, config: TlsConfig) -> Credentials:
    """Check the files, and return them ready to be served.

    Raises:
        BadConfig: a file holds something else than it should, or a certificate that is not valid now.
    """
    chain = _certificates("certificate", config.certificate, files.certificate)
    if problem := _not_valid_now(chain[0]) or unfit_certificate(chain):
        raise BadConfig(f"server.tls.certificate: {config.certificate} {problem}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        _load_pair(context, files)
        check_key(files.key)
        check_handshake(context)
    except ValueError as error:
        raise BadConfig(f"server.tls.key: {config.key} {error}") from error
    authorities: list[x509.Certificate] = []
    if config.client_ca is not None:
        authorities = _certificates("client_ca", config.client_ca, files.client_ca)
        if all(map(_not_valid_now, authorities)):
            raise BadConfig(f"server.tls.client_ca: {config.client_ca} {_not_valid_now(authorities[0])}")
        if problem := unfit_authority(authorities):
            raise BadConfig(f"server.tls.client_ca: {config.client_ca} {problem}")
    return Credentials(files, chain, authorities, context, _describe(chain[0]))


def _certificates(key: str, path: Path | None, pem: bytes) -> list[x509.Certificate]:
    """Parse the certificates of the file of ``server.tls.<key>``.

    Raises:
        BadConfig: it holds none, or only a part of one.
    """
    try:
        check_certificates(pem)
        found = x509.load_pem_x509_certificates(pem)
        for each in found:
            _describe(each)  # which parses what has not been parsed yet
        return found
    except ValueError as error:
        raise BadConfig(f"server.tls.{key}: {path} {error}") from error


def _load_pair(context: ssl.SSLContext, files: PemFiles) -> None:
    """Give ``context`` the certificate and the key that were read; Python takes them from files only.

    The files here are in memory: those on disk may have changed meanwhile.
    """
    with ExitStack() as stack:
        paths: list[str] = []
        for content in (files.certificate, files.key):
            file = stack.enter_context(os.fdopen(os.memfd_create("tls"), "wb", buffering=0))
            file.write(content)
            paths.append(f"/proc/self/fd/{file.fileno()}")
        load_pair(context, *paths)


def _has_expired(certificate: x509.Certificate) -> bool:
    """Tell whether the certificate was valid until now at most."""
    return certificate.not_valid_after_utc <= datetime.now(UTC)


def _not_valid_now(certificate: x509.Certificate) -> str:
    """Return why the certificate is not valid now; empty if it is."""
    if _has_expired(certificate):
        return f"expired at {_time(certificate.not_valid_after_utc)}; renew it"
    if certificate.not_valid_before_utc > datetime.now(UTC):
        return f"is not valid before {_time(certificate.not_valid_before_utc)}; is the clock right?"
    return ""


def _describe(certificate: x509.Certificate) -> str:
    """Describe a certificate in a line: whom it is for, who signed it, until when it is valid."""
    is_own = certificate.issuer == certificate.subject
    issuer = "itself, so that clients need it as their ca" if is_own else certificate.issuer.rfc4514_string()
    hosts = ", ".join(_hosts(certificate)) or "no host"
    return f"for {hosts}, signed by {issuer}, valid until {_time(certificate.not_valid_after_utc)}"


def _hosts(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that the certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(each.value) for each in names]
    except x509.ExtensionNotFound:
        return [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _time(time: datetime) -> str:
    """Format a time of a certificate."""
    return f"{time:%Y-%m-%d %H:%M} UTC"
