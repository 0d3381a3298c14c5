"""How a client uses TLS."""

import os
from dataclasses import dataclass, fields

_PREFIX = "TUBELET_CLIENT__"
_OFF = ("", "0", "false", "f", "no", "n", "off")


@dataclass(frozen=True, slots=True)
class Tls:
    """The files that a client uses for TLS, all in PEM form.

    ``ca`` has the authorities that may have signed the server's certificate, by default those that gRPC comes
    with. ``cert`` and ``key`` are the client's own certificate and its private key, where the server asks for
    them. ``server_name`` is the name that the server's certificate must have, by default the address's host.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key need each other; only one of them is given")


def tls_from_environment() -> Tls | None:
    """Return what ``TUBELET_CLIENT__TLS``, ``TUBELET_CLIENT__CA`` and the like ask for, if anything."""
    names = {field.name: _PREFIX + field.name.upper() for field in fields(Tls)}
    found = {name: os.environ[variable] for name, variable in names.items() if os.environ.get(variable)}
    is_on = os.environ.get(f"{_PREFIX}TLS", "").lower() not in _OFF
    return Tls(**found) if found or is_on else None
