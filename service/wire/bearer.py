"""Bearer tokens in the ``authorization`` header (RFC 6750). No error here repeats a token."""

import re
from collections.abc import Sequence

AUTHORIZATION = "authorization"
_SCHEME = "bearer"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_DOTS_OF_JWT = 2  # between header, claims and signature
_MAX_CHARACTERS = 4096  # gRPC itself may refuse metadata from 8 KiB on


def check_token(token: str) -> str:
    """Return ``token`` without white space around it.

    Raises:
        ValueError: it is empty, too long, or has characters that no token has.
    """
    bare = token.strip()
    if len(bare) > _MAX_CHARACTERS:
        raise ValueError(f"a token has {_MAX_CHARACTERS} characters at most; this one has {len(bare)}")
    if not _TOKEN.fullmatch(bare):
        raise ValueError("a token is one word of letters, digits and the signs . _ ~ + / - =")
    return bare


def is_issued(token: str) -> bool:
    """Tell whether a token has the form of one of an issuer (JWT), rather than of one of a file."""
    return token.count(".") == _DOTS_OF_JWT


def to_header(token: str) -> str:
    """Return the value of the header for ``token``."""
    return f"Bearer {token}"


def from_headers(values: Sequence[str]) -> str | None:
    """Return the token in the values of the header; None if there are none.

    Raises:
        ValueError: there are several, or it is not a bearer token.
    """
    if not values:
        return None
    if len(values) > 1:
        raise ValueError(f"the {AUTHORIZATION} header came {len(values)} times; send it once")
    scheme, _, token = values[0].strip().partition(" ")
    if scheme.lower() != _SCHEME:
        raise ValueError(f"the {AUTHORIZATION} header must be: Bearer TOKEN")
    return check_token(token)
