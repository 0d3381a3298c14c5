"""The client's connection to a server: plain, or by TLS with certificates that are checked first."""

import os
import ssl
from pathlib import Path

import grpc

from tubelet.service.types.target import asks_for_tls
from tubelet.service.types.tls import Tls, tls_from_environment
from tubelet.service.types.token import BadToken, Token, token_from_environment
from tubelet.service.wire.bearer import AUTHORIZATION, check_token, to_header
from tubelet.service.wire.pem import check_certificates, load_pair

_OPTIONS = [("grpc.max_receive_message_length", -1)]


def choose_tls(address: str, tls: Tls | bool | None) -> Tls | None:
    """Return how to use TLS with the server at ``address``; None is not at all.

    ``tls`` is what the caller wants: the files, True for none of its own, False for no TLS, None for what the
    environment asks for, or else the address by beginning with ``https://``.
    """
    if tls is None:
        tls = tls_from_environment() or asks_for_tls(address)
    return Tls() if tls is True else tls or None


def choose_token(token: Token | str | None) -> Token | None:
    """Return the caller's token, or else that of the environment; None if there is none.

    Raises:
        BadToken: its text and a file are given.
    """
    return Token(token) if isinstance(token, str) else token or token_from_environment()


def to_metadata(token: Token | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call with ``token``.

    Raises:
        BadToken: what is given, or in the file, is no token, or the file cannot be read.
    """
    if token is None:
        return ()
    text = token.read()
    try:
        return ((AUTHORIZATION, to_header(check_token(text))),)
    except ValueError as error:
        where = "" if token.file is None else f"{os.fspath(token.file)}: "
        raise BadToken(f"{where}{error}") from None


def open_channel(target: str, tls: Tls | None) -> grpc.Channel:
    """Open a channel to ``target``, which connects with its first call; None is plain, without TLS.

    Raises:
        OSError: a file cannot be read, or does not hold what it should.
    """
    if tls is None:
        return grpc.insecure_channel(target, options=_OPTIONS)
    ca = None if tls.ca is None else _read_certificates(tls.ca)
    key, cert = (None, None) if tls.cert is None or tls.key is None else _read_pair(tls.cert, tls.key)
    name = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, cert), [*_OPTIONS, *name])


def _read_pair(cert: str | os.PathLike[str], key: str | os.PathLike[str]) -> tuple[bytes, bytes]:
    """Read and check the client's key and certificate."""
    certificates, private_key = _read_certificates(cert), _read(key)
    try:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), os.fspath(cert), os.fspath(key))
    except ValueError as error:
        raise OSError(f"the key {os.fspath(key)} {error}") from error
    return private_key, certificates


def _read_certificates(path: str | os.PathLike[str]) -> bytes:
    """Read and check a file of certificates."""
    pem = _read(path)
    try:
        check_certificates(pem)
    except ValueError as error:
        raise OSError(f"{os.fspath(path)} {error}") from error
    return pem


def _read(path: str | os.PathLike[str]) -> bytes:
    """Read a file."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise OSError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
