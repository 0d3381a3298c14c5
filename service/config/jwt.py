"""The table for tokens of an issuer (JWT, RFC 7519)."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from tubelet.service.config.table import Table
from tubelet.service.types.target import is_local

# Those with public keys. With a shared secret (HS256), whoever can check a token could make one.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class JwtConfig(Table):
    """Tokens of an issuer (JWT), beside those of the file of identities; see
    [Who may call](#who-may-call). They need `pip install 'tubelet[jwt]'`."""

    issuer: str = ""
    """Who signs the tokens: their `iss`. Empty: no such tokens are accepted."""
    audience: str = ""
    """Whom the tokens are for: one of their `aud`."""
    keys: str = ""
    """File, or `https://` URL, of the issuer's public keys (JWKS). Of several keys, each needs a `kid` of its
    own. A file is read again within seconds when it changes, both on SIGHUP."""
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256")
    """Algorithms of signatures that are accepted; `EdDSA` is for Ed25519 keys."""
    claim: str = Field(default="sub", min_length=1)
    """Claim with the name of the identity, which needs a table in `server.access.identities`."""
    skew_s: float = Field(default=30.0, ge=0, le=600)
    """Most that the issuer's clock may differ, for `exp`, `nbf` and `iat`."""
    refresh_s: float = Field(default=300.0, ge=10)
    """Time after which the keys at a URL are read again. A token with an unknown key makes it sooner."""
    max_keys_age_s: float = Field(default=86_400.0, gt=0)
    """Time for which keys are used that cannot be read again; at least twice `refresh_s`. Then no token of
    the issuer is accepted."""

    @field_validator("algorithms")
    @classmethod
    def _is_not_empty(cls, algorithms: tuple[Algorithm, ...]) -> tuple[Algorithm, ...]:
        """Check that there is one. A length of the field itself would also be wrong where each one is."""
        if not algorithms:
            raise ValueError("at least one algorithm is needed")
        return algorithms

    @field_validator("keys")
    @classmethod
    def _is_safe(cls, keys: str) -> str:
        """Check that nobody on the way can replace the keys."""
        parts = urlsplit(keys)
        if parts.scheme == "http" and not is_local(f"{parts.hostname}:0"):
            raise ValueError("keys must come by https://; http:// is for this machine alone")
        return keys

    @model_validator(mode="after")
    def _is_complete(self) -> "JwtConfig":
        """Check that all is set that a token is checked by."""
        if self.issuer and not (self.audience and self.keys):
            raise ValueError("issuer needs audience and keys")
        if (
            self.max_keys_age_s < 2 * self.refresh_s
        ):  # else good keys would be too old before they are read again
            raise ValueError("max_keys_age_s must be at least twice refresh_s")
        return self
