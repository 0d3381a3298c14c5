"""The keys of certificates that gRPC can serve: its TLS (BoringSSL) takes fewer kinds than OpenSSL.

It was tried with servers and clients of gRPC for Python. With a key of another kind a port cannot be bound,
or handshakes fail, and nothing says why.
"""

import re
import ssl
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import PublicKeyAlgorithmOID, SignatureAlgorithmOID

_RSA, _ED25519 = "RSA", "Ed25519"
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_OF_CERTIFICATES = (_RSA, "P-256", "P-384")
_OF_AUTHORITIES = (*_OF_CERTIFICATES, "P-521", _ED25519)
_NAMES = {
    PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5: _RSA,
    PublicKeyAlgorithmOID.RSASSA_PSS: "RSA-PSS",
    PublicKeyAlgorithmOID.ED25519: _ED25519,
    PublicKeyAlgorithmOID.ED448: "Ed448",
    PublicKeyAlgorithmOID.DSA: "DSA",
}
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:RSA )?PRIVATE KEY-----.*?-----END (?:RSA )?PRIVATE KEY-----", re.S)
_DAMAGED = "is damaged: its numbers do not fit, so that no handshake would succeed"
_FLIGHTS = 3  # of messages of a handshake, from each side


def unfit_certificate(chain: Sequence[x509.Certificate]) -> str:
    """Return why gRPC cannot serve the first certificate, with the authorities after it; empty if it can."""
    if problem := _unfit(chain[0], _OF_CERTIFICATES):
        return problem
    if chain[0].signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS:
        return "is signed by RSA-PSS, which clients of gRPC cannot check; sign it by RSA (PKCS #1) or ECDSA"
    return unfit_authority(chain[1:])


def unfit_authority(authorities: Sequence[x509.Certificate]) -> str:
    """Return why gRPC cannot check signatures of one of the authorities; empty if it can."""
    problems = (_unfit(each, _OF_AUTHORITIES) for each in authorities)
    return next((problem for problem in problems if problem), "")


def check_key(pem: bytes) -> None:
    """Check the numbers of a private key for RSA against each other, which OpenSSL does not.

    Raises:
        ValueError: they do not fit.
    """
    for block in _PRIVATE_KEY.findall(pem):
        try:
            load_pem_private_key(block, password=None)
        except ValueError as error:
            raise ValueError(_DAMAGED) from error


def check_handshake(server: ssl.SSLContext) -> None:
    """Make a handshake in memory, with a client that trusts anybody.

    Raises:
        ValueError: the key does not sign as the certificate says.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_FLIGHTS):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                raise ValueError(_DAMAGED) from error


def _unfit(certificate: x509.Certificate, kinds: Sequence[str]) -> str:
    """Return why a certificate's key is of none of these kinds; empty if it is of one."""
    kind = _kind(certificate)
    if kind in kinds:
        return ""
    return f"has a key of the kind {kind}, which gRPC does not take; it takes {', '.join(kinds)}"


def _kind(certificate: x509.Certificate) -> str:
    """Return the name of a key's algorithm, or of its curve."""
    oid = certificate.public_key_algorithm_oid
    if oid != PublicKeyAlgorithmOID.EC_PUBLIC_KEY:
        return _NAMES.get(oid, oid.dotted_string)
    try:
        key = certificate.public_key()
        encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return "EC of an unknown curve"
    if not isinstance(key, ec.EllipticCurvePublicKey) or encoded not in certificate.tbs_certificate_bytes:
        return "EC of an unnamed curve"  # whose parameters are in the certificate
    return _CURVES.get(key.curve.name, key.curve.name)
