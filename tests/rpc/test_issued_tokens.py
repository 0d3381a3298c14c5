"""Tokens of an issuer: which are right, and what is said of those that are not."""

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.issuer import AUDIENCE, ISSUER, Issuer
from tubelet.service.config.jwt import JwtConfig
from tubelet.service.rpc import issued_tokens
from tubelet.service.rpc.issued_tokens import IssuedTokens

ISSUED, OTHER = Issuer(), Issuer()
CONFIG = JwtConfig(issuer=ISSUER, audience=AUDIENCE, keys="keys.json")


def encoded(data: Any) -> str:
    content = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def by_hmac(secret: bytes) -> str:
    """A token whose signature is an HMAC with a public key, which everybody has, as the secret."""
    signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': ISSUED.rsa_id})}.{encoded(ISSUED.claims())}"
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def tokens(**settings: Any) -> IssuedTokens:
    made = IssuedTokens(CONFIG.model_copy(update=settings))
    made.use_keys(ISSUED.jwks())
    return made


def problem(token: str, **settings: Any) -> str:
    """What is said of a token that is not right."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        tokens(**settings).name_of(token)
    assert not any(part in str(caught.value) for part in token.split(".") if len(part) > 8)
    return str(caught.value)


def test_a_right_token_has_a_name() -> None:
    assert tokens().name_of(ISSUED.token()) == "alice"
    assert tokens().name_of(ISSUED.ec_token()) == "alice"
    assert tokens().name_of(ISSUED.token(aud=["other", AUDIENCE])) == "alice"
    assert tokens(claim="email").name_of(ISSUED.token(email="a@example")) == "a@example"


def test_the_skew_is_for_each_time() -> None:
    now = time()
    assert tokens().name_of(ISSUED.token(exp=now - 20, nbf=now + 20, iat=now + 20)) == "alice"
    assert "expired" in problem(ISSUED.token(exp=now - 40))
    assert "not valid yet" in problem(ISSUED.token(nbf=now + 40))
    assert "not valid yet" in problem(ISSUED.token(iat=now + 40))
    assert "expired" in problem(ISSUED.token(exp=now - 2), skew_s=0)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (lambda: ISSUED.token(aud="other"), "another audience"),
        (lambda: ISSUED.token(aud=None), "lacks a claim"),
        (lambda: ISSUED.token(iss="https://other.example"), "another issuer"),
        (lambda: ISSUED.token(iss=None), "lacks a claim"),
        (lambda: ISSUED.token(exp=None), "lacks a claim"),
        (lambda: ISSUED.token(sub=None), "lacks a claim"),
        (lambda: ISSUED.token(sub=["alice"]), "malformed"),
        (lambda: ISSUED.token(exp="never"), "malformed"),
        (lambda: OTHER.token(), "the signature of the token is wrong"),
        (lambda: f"{ISSUED.token().rpartition('.')[0]}.", "the signature of the token is wrong"),
        (lambda: f"{encoded({'alg': 'none'})}.{encoded(ISSUED.claims())}.", "an algorithm that this server"),
        (lambda: f"{encoded({'alg': 'NONE'})}.{encoded(ISSUED.claims())}.", "an algorithm that this server"),
        (lambda: f"{encoded({})}.{encoded(ISSUED.claims())}.", "an algorithm that this server"),
        (lambda: jwt.encode(ISSUED.claims(), ISSUED.rsa, "RS512", {"kid": "rsa"}), "an algorithm"),
        (lambda: jwt.encode(ISSUED.claims(), ISSUED.rsa, "RS256", {"kid": "gone"}), "does not know the key"),
        (lambda: jwt.encode(ISSUED.claims(), ISSUED.rsa, "RS256"), "does not know the key"),
        (lambda: jwt.encode(ISSUED.claims(), ISSUED.ec, "ES256", {"kid": "rsa"}), "an algorithm"),
        (lambda: "a.b.c", "malformed"),
        (lambda: "..", "malformed"),
        (lambda: f"{encoded(b'[' * 3000)}.{encoded({})}.x", "malformed"),
        (lambda: f"{encoded({'alg': ['RS256']})}.{encoded({})}.x", "malformed"),
        (lambda: f"{encoded([])}.{encoded({})}.x", "malformed"),
        (lambda: f"{encoded({'alg': ['RS256'], 'kid': {}})}.{encoded({})}.x", "malformed"),
    ],
)  # fmt: skip
def test_a_wrong_token_is_refused(token: Callable[[], str], said: str) -> None:
    assert said in problem(token())


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
def test_a_public_key_is_no_secret(form: PublicFormat) -> None:
    secret = ISSUED.rsa.public_key().public_bytes(Encoding.PEM, form)
    assert "an algorithm that this server does not accept" in problem(by_hmac(secret))
    shared = json.dumps({"keys": [{"kty": "oct", "k": encoded(b"x" * 32), "kid": "rsa"}]}).encode()
    with pytest.raises(ValueError, match="no public key for signatures by RS256, ES256"):
        IssuedTokens(CONFIG).use_keys(shared)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS384", "HS512", "", "rs256"])
def test_the_configuration_allows_no_shared_secret(algorithm: str) -> None:
    with pytest.raises(ValueError, match="Input should be"):
        JwtConfig(issuer=ISSUER, audience=AUDIENCE, keys="k", algorithms=(algorithm,))  # pyright: ignore[reportArgumentType]


def test_random_changes_are_refused() -> None:
    """No change of a token is another right one, and none is an error of ours."""
    random_, right, known = random.Random(3), ISSUED.token(), tokens()
    for _ in range(1500):
        place = random_.randrange(len(right) - 2)  # of the last digit, not all bits count
        changed = right[:place] + random_.choice("ABCxyz019._~+/-=") + right[place + 1 :]
        if random_.random() < 0.2:
            changed = changed[:place]
        if changed != right:
            with pytest.raises(ValueError):  # noqa: PT011
                known.name_of(changed)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": 1}',
        b'{"keys": [1]}',
        b'{"keys": [{}]}',
        b"\xff",
        b"[" * 99_999,
    ],
)
def test_what_is_no_set_of_keys_changes_nothing(content: bytes) -> None:
    known = tokens()
    with pytest.raises(ValueError, match="it is no set of public keys"):
        known.use_keys(content)
    assert known.name_of(ISSUED.token()) == "alice"


def test_a_lone_key_needs_no_name() -> None:
    entry = json.loads(ISSUED.jwks())["keys"][0]
    known = IssuedTokens(CONFIG)
    assert known.use_keys(json.dumps({"keys": [entry, {"kty": "new"}]}).encode()) == 1
    assert known.name_of(jwt.encode(ISSUED.claims(), ISSUED.rsa, "RS256")) == "alice"
    encryption = json.dumps({"keys": [entry | {"use": "enc"}]}).encode()
    with pytest.raises(ValueError, match="no public key for signatures"):
        known.use_keys(encryption)


@pytest.mark.parametrize("name", [{}, {"kid": "same"}])
def test_keys_that_cannot_be_told_apart_change_nothing(name: dict[str, str]) -> None:
    """An issuer that adds a new key would else have all tokens of the old one refused, or the reverse."""
    entries = [json.loads(each.jwks())["keys"][0] for each in (ISSUED, OTHER)]
    for entry in entries:
        del entry["kid"]
    known = tokens()
    with pytest.raises(ValueError, match=r"each needs a key id \(kid\) of its own"):
        known.use_keys(json.dumps({"keys": [entry | name for entry in entries]}).encode())
    assert known.name_of(ISSUED.token()) == "alice"
    known.use_keys(json.dumps({"keys": [entries[0], entries[1] | {"kid": "new"}]}).encode())
    assert known.name_of(jwt.encode(ISSUED.claims(), ISSUED.rsa, "RS256")) == "alice"


def test_a_weak_key_is_not_used() -> None:
    weak = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
    with pytest.raises(ValueError, match="no public key for signatures"):
        IssuedTokens(CONFIG).use_keys(json.dumps({"keys": [weak | {"kid": "weak"}]}).encode())


def test_eddsa_is_ed25519() -> None:
    key, other = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    entry = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "ed"}
    known = IssuedTokens(CONFIG.model_copy(update={"algorithms": ("EdDSA",)}))
    known.use_keys(json.dumps({"keys": [entry]}).encode())
    token = jwt.encode(ISSUED.claims(), key, "EdDSA", {"kid": "ed"})
    assert known.name_of(token) == "alice"
    with pytest.raises(ValueError, match="signature of the token is wrong"):
        known.name_of(jwt.encode(ISSUED.claims(), other, "EdDSA", {"kid": "ed"}))
    with pytest.raises(ValueError, match="an algorithm that this server does not accept"):
        tokens().name_of(token)
    entry = OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True)
    with pytest.raises(ValueError, match="it is no set of public keys"):
        known.use_keys(json.dumps({"keys": [entry]}).encode())


@pytest.mark.parametrize("algorithm", ["PS256", "PS384", "PS512", "RS384"])
def test_one_rsa_key_is_for_the_algorithm_that_it_names(algorithm: str) -> None:
    entry = json.loads(ISSUED.jwks())["keys"][0] | {"alg": algorithm}
    known = IssuedTokens(CONFIG.model_copy(update={"algorithms": ("RS256", algorithm)}))
    known.use_keys(json.dumps({"keys": [entry]}).encode())
    header = {"kid": ISSUED.rsa_id}
    assert known.name_of(jwt.encode(ISSUED.claims(), ISSUED.rsa, algorithm, header)) == "alice"
    with pytest.raises(ValueError, match="an algorithm that this server does not accept"):
        known.name_of(jwt.encode(ISSUED.claims(), ISSUED.rsa, "RS256", header))


def test_secp256k1_is_not_accepted() -> None:
    """ES256K is no algorithm of the settings, and ES256 is for P-256 alone, whatever a key says."""
    key, known = ec.generate_private_key(ec.SECP256K1()), IssuedTokens(CONFIG)
    entry = ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "k1"}
    with pytest.raises(ValueError, match="no public key for signatures"):
        known.use_keys(json.dumps({"keys": [entry]}).encode())
    known.use_keys(json.dumps({"keys": [entry | {"alg": "ES256"}]}).encode())
    with pytest.raises(ValueError, match=r"is malformed|an algorithm"):
        known.name_of(jwt.encode(ISSUED.claims(), key, "ES256K", {"kid": "k1"}))


@pytest.mark.parametrize("value", [["alice"], 5, True, {"alice": 1}, None])
def test_a_name_is_text(value: Any) -> None:
    said = "lacks a claim" if value is None else "the claim email of the token is no text"
    assert said in problem(ISSUED.token(email=value), claim="email")


def test_a_token_with_a_critical_extension_is_refused() -> None:
    header = {"kid": ISSUED.rsa_id, "crit": ["exp2"], "exp2": 1}
    assert "malformed" in problem(jwt.encode(ISSUED.claims(), ISSUED.rsa, "RS256", header))


def test_an_unknown_key_is_wanted() -> None:
    known = tokens()
    known.name_of(ISSUED.token())
    assert not known.keys_wanted.is_set()
    with pytest.raises(ValueError, match="does not know the key"):
        known.name_of(jwt.encode(ISSUED.claims(), ISSUED.rsa, "RS256", {"kid": "new"}))
    assert known.keys_wanted.is_set()


def test_keys_that_are_too_old_are_used_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(issued_tokens, "monotonic", lambda: now)
    known = IssuedTokens(CONFIG)
    with pytest.raises(ValueError, match="cannot read the keys of the token's issuer"):
        known.name_of(ISSUED.token())
    known.use_keys(ISSUED.jwks())
    now += CONFIG.max_keys_age_s - 1
    assert known.name_of(ISSUED.token()) == "alice"
    now += 2
    with pytest.raises(ValueError, match="cannot read the keys of the token's issuer"):
        known.name_of(ISSUED.token())
    known.still_good()
    assert known.name_of(ISSUED.token()) == "alice"
