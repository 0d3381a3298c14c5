"""Tokens of an issuer (JWT, RFC 7519 and 8725): checks who signed one, for whom, and until when."""

import asyncio
import json
from collections.abc import Iterator
from math import inf
from time import monotonic
from typing import Any

import jwt

from tubelet.service.config.jwt import JwtConfig

_MIN_RSA_BITS = 2048

_PROBLEMS: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token is for another audience than this server",
    jwt.InvalidIssuerError: "the token is of another issuer than this server asks for",
    jwt.MissingRequiredClaimError: "the token lacks a claim that this server asks for",
    jwt.InvalidAlgorithmError: "the token is signed by an algorithm that this server does not accept",
    jwt.InvalidSignatureError: "the signature of the token is wrong",
}


class IssuedTokens:
    """Checks tokens by the issuer's public keys. ``keys_wanted`` is set when a token needs others."""

    def __init__(self, config: JwtConfig) -> None:
        self._config = config
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at = -inf
        self.keys_wanted = asyncio.Event()

    def use_keys(self, content: bytes) -> int:
        """Use the public keys of a JWKS (RFC 7517) from now on; return how many fit.

        Raises:
            ValueError: it is no JWKS, or has no key that fits, or several of one id. No message repeats it.
        """
        fitting = list(self._parsed(content))
        if not fitting:
            accepted = ", ".join(self._config.algorithms)
            raise ValueError(f"there is no public key for signatures by {accepted} in it")
        keys = {key.key_id: key for key in fitting}
        if len(keys) < len(fitting):
            raise ValueError("of several keys in it, each needs a key id (kid) of its own")
        self._keys, self._read_at = keys, monotonic()
        return len(keys)

    def still_good(self) -> None:
        """Record that the keys in use are those that the issuer has now."""
        self._read_at = monotonic()

    def name_of(self, token: str) -> str:
        """Return the name of the identity in ``token``, which was found right.

        Raises:
            ValueError: it is not right; the message says why, and does not repeat it.
        """
        config = self._config
        if monotonic() - self._read_at > config.max_keys_age_s:
            raise ValueError("this server cannot read the keys of the token's issuer; ask its operator")
        try:
            claims = jwt.decode(
                token,
                self._key_of(token),
                algorithms=config.algorithms,
                audience=config.audience,
                issuer=config.issuer,
                leeway=config.skew_s,
                options={"require": ["exp", "iss", "aud", config.claim]},
            )
        except (jwt.PyJWTError, RecursionError) as error:
            known = (text for kind, text in _PROBLEMS.items() if isinstance(error, kind))
            raise ValueError(next(known, "the token is malformed")) from None
        if not isinstance(name := claims[config.claim], str):
            raise ValueError(f"the claim {config.claim} of the token is no text")
        return name

    def _key_of(self, token: str) -> jwt.PyJWK:
        """Return the key that a token names, or the only one.

        Raises:
            jwt.PyJWTError: it is malformed, or its algorithm is not accepted.
            ValueError: no key is known that fits.
        """
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in self._config.algorithms:
            raise jwt.InvalidAlgorithmError
        name = header.get("kid")
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if name not in self._keys:
            self.keys_wanted.set()
            raise ValueError("this server does not know the key that signed the token")
        return self._keys[name]

    def _parsed(self, content: bytes) -> Iterator[jwt.PyJWK]:
        """Yield the keys of a JWKS that are for signatures by the accepted algorithms; skip all others."""
        try:
            entries: Any = json.loads(content)["keys"]
            keys = jwt.PyJWKSet(entries).keys
        except (ValueError, KeyError, TypeError, RecursionError, jwt.PyJWTError) as error:
            raise ValueError("it is no set of public keys (JWKS)") from error
        for key in keys:
            is_accepted = key.algorithm_name in self._config.algorithms
            if is_accepted and key.public_key_use in (None, "sig") and not _is_weak(key):
                yield key


def _is_weak(key: jwt.PyJWK) -> bool:
    """Tell whether a key for RSA has fewer bits than RFC 7518 asks for."""
    return getattr(key.key, "key_size", _MIN_RSA_BITS) < _MIN_RSA_BITS and key.key_type == "RSA"
