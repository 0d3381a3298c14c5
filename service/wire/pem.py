"""Certificates and keys in PEM files: checked before gRPC gets them, which would not say what is wrong."""

import ssl
from typing import NoReturn

NO_CERTIFICATE = "holds no certificate in PEM form, or only a part of one"


def check_certificates(pem: bytes) -> None:
    """Check that ``pem`` holds certificates, and nothing that only begins like one.

    Raises:
        ValueError: it does not; the message says what is wrong, without naming the file.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(NO_CERTIFICATE) from error


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Make ``context`` show the certificate in one file with the private key in another one.

    Raises:
        ValueError: the key is none, or not the certificate's; the message says so without naming the file.
        OSError: a file cannot be read.
    """
    try:
        context.load_cert_chain(certificate, key, password=_refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError("does not belong to the certificate") from error
        if error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            raise ValueError(f"or its certificate is too weak ({error.reason})") from error
        raise ValueError("holds no private key in PEM form, or only a part of one") from error


def _refuse() -> NoReturn:
    """Refuse to give the passphrase of an encrypted key; without this, OpenSSL would ask the terminal."""
    raise ValueError("is encrypted: give it without a passphrase (openssl pkey -in FILE -out PLAIN)")
