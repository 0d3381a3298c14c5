"""The table for who may call."""

from pathlib import Path

from pydantic import model_validator

from tubelet.service.config.jwt import JwtConfig
from tubelet.service.config.quotas import NO_QUOTAS, QuotasConfig
from tubelet.service.config.table import Table


class AccessConfig(Table):
    """Who may call; see [Who may call](#who-may-call)."""

    identities: Path | None = None
    """File (TOML) of the identities that may call, with the hashes of their tokens and what each may do. It
    is read again within seconds when it changes, and on SIGHUP. Not set: whoever reaches a port may call."""
    plain_tokens: bool = False
    """Whether tokens are accepted without TLS on other addresses than this machine's own: where a mesh or a
    proxy ends TLS. Else such a server does not start."""
    metrics_token: bool = False
    """Whether `/metrics` is only for identities with `metrics = true`. `/healthz` and `/readyz` stay open."""
    reflection: bool = True
    """Whether gRPC reflection tells everybody the protocol, which tools such as grpcurl use."""

    jwt: JwtConfig = JwtConfig()
    quotas: QuotasConfig = NO_QUOTAS

    @model_validator(mode="after")
    def _has_identities(self) -> "AccessConfig":
        """Check that there are identities for what needs them."""
        if self.metrics_token and self.identities is None:
            raise ValueError("metrics_token needs server.access.identities, the file of identities")
        if self.jwt.issuer and self.identities is None:
            raise ValueError("jwt.issuer needs server.access.identities, which says what its names may do")
        if self.quotas.are_set and self.identities is None:
            raise ValueError("quotas need server.access.identities, the file of those whom they are for")
        return self
