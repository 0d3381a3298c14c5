"""Kinds of keys: what is refused of ``server.tls`` is what gRPC cannot use, and nothing else."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.support.certificates import Authority, Pair, self_signed
from tubelet.service.config.problems import BadConfig
from tubelet.service.config.tls import TlsConfig
from tubelet.service.server.certificates import read_credentials

CURVE = "ec_paramgen_curve:"
KINDS = {
    "RSA": ("rsa:2048",),
    "P-256": ("ec", "-pkeyopt", f"{CURVE}prime256v1"),
    "P-384": ("ec", "-pkeyopt", f"{CURVE}secp384r1"),
    "P-521": ("ec", "-pkeyopt", f"{CURVE}secp521r1"),
    "secp256k1": ("ec", "-pkeyopt", f"{CURVE}secp256k1"),
    "brainpoolP256r1": ("ec", "-pkeyopt", f"{CURVE}brainpoolP256r1"),
    "EC of an unnamed curve": ("ec", "-pkeyopt", f"{CURVE}prime256v1", "-pkeyopt", "ec_param_enc:explicit"),
    "Ed25519": ("ed25519",),
    "Ed448": ("ed448",),
    "RSA-PSS": ("rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"),
}
OF_CERTIFICATES = ("RSA", "P-256", "P-384")
OF_AUTHORITIES = (*OF_CERTIFICATES, "P-521", "Ed25519")


def problem_of(pair: Pair, client_ca: Path | None = None) -> str:
    """Why the files are refused; empty if they are not."""
    try:
        read_credentials(
            TlsConfig(certificate=pair.certificate, key=pair.key, client_ca=client_ca), known=None
        )
    except BadConfig as error:
        return str(error)
    return ""


def grpc_uses(pair: Pair, ca: Path) -> bool:
    """Tell whether a server of gRPC with this pair answers a client of gRPC that trusts ``ca``."""
    server = grpc.server(ThreadPoolExecutor(1))
    own = [(pair.key.read_bytes(), pair.certificate.read_bytes())]
    try:
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials(own))
    except RuntimeError:
        return False
    server.start()
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    try:
        with (
            grpc.secure_channel(f"localhost:{port}", credentials) as channel,
            pytest.raises(grpc.RpcError) as caught,
        ):
            channel.unary_unary("/no/method")(b"", timeout=60)
    finally:
        server.stop(None)
    code: grpc.StatusCode = caught.value.code()  # pyright: ignore[reportAttributeAccessIssue]
    assert code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE)
    return code is grpc.StatusCode.UNIMPLEMENTED


def signed_by(authority: Pair, folder: Path, *arguments: str) -> Pair:
    """A pair with a key for P-256 that this authority signed."""
    pair, asked, names = Pair(folder / "leaf.pem", folder / "leaf.key"), folder / "leaf.csr", folder / "names"
    names.write_text("subjectAltName=DNS:localhost")
    new = [
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        f"{CURVE}prime256v1",
        "-keyout",
        pair.key,
        "-subj",
        "/CN=leaf",
    ]
    by = ["-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial", "-extfile", names]
    for command in (
        ["req", *new, "-out", asked],
        ["x509", "-req", "-in", asked, *by, "-out", pair.certificate],
    ):
        subprocess.run(
            ["openssl", *command, *(arguments * (command[0] == "x509"))], check=True, capture_output=True
        )
    return pair


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_grpc_cannot_serve_are_refused(tmp_path: Path, kind: str) -> None:
    pair = self_signed(tmp_path, "localhost", "-newkey", *KINDS[kind])
    assert grpc_uses(pair, pair.certificate) is (kind in OF_CERTIFICATES)
    says = f"has a key of the kind {kind}, which gRPC does not take; it takes RSA, P-256, P-384"
    expected = "" if kind in OF_CERTIFICATES else f"server.tls.certificate: {pair.certificate} {says}"
    assert problem_of(pair) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_authorities_whose_signatures_grpc_cannot_check_are_refused(tmp_path: Path, kind: str) -> None:
    authority = self_signed(tmp_path, "authority", "-newkey", *KINDS[kind])
    leaf, root = signed_by(authority, tmp_path), Authority(tmp_path / "other").issue("localhost")
    assert grpc_uses(leaf, authority.certificate) is (kind in OF_AUTHORITIES)
    problem = problem_of(root, authority.certificate)
    if kind in OF_AUTHORITIES:
        assert problem == ""
    else:
        says = f"{kind}, which gRPC does not take; it takes RSA, P-256, P-384, P-521, Ed25519"
        assert problem == f"server.tls.client_ca: {authority.certificate} has a key of the kind {says}"


def test_a_certificate_signed_by_rsa_pss_is_refused(tmp_path: Path) -> None:
    authority = self_signed(tmp_path, "authority")
    assert problem_of(signed_by(authority, tmp_path)) == ""
    leaf = signed_by(authority, tmp_path, "-sigopt", "rsa_padding_mode:pss")
    assert not grpc_uses(leaf, authority.certificate)
    assert "is signed by RSA-PSS, which clients of gRPC cannot check" in problem_of(leaf)


@pytest.mark.parametrize("place", [400, 700, 900])
def test_a_damaged_key_is_refused(tmp_path: Path, place: int) -> None:
    """A bit of its private exponent, or of a prime; OpenSSL compares nothing but what both files have."""
    pair = self_signed(tmp_path, "localhost")
    whole = pair.key.read_bytes()
    form = ("openssl", "rsa", "-traditional")
    encoded = subprocess.run([*form, "-outform", "DER"], input=whole, check=True, capture_output=True).stdout
    damaged = bytearray(encoded)
    damaged[place] ^= 1
    back = subprocess.run([*form, "-inform", "DER"], input=damaged, check=True, capture_output=True)
    pair.key.write_bytes(back.stdout)
    says = "is damaged: its numbers do not fit, so that no handshake would succeed"
    assert problem_of(pair) == f"server.tls.key: {pair.key} {says}"
    assert not grpc_uses(pair, pair.certificate)
    pair.key.write_bytes(pair.certificate.read_bytes() + whole)  # both in one file
    assert problem_of(pair) == ""
