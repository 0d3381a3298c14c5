"""Addresses of servers: parses what users write into what gRPC takes. No name is resolved."""

import re
from ipaddress import AddressValueError, IPv6Address, ip_address

DEFAULT_PORT = 8500

_TLS_SCHEMES, _PLAIN_SCHEMES = ("https", "grpcs"), ("http", "grpc")
_GRPC_NAMES = ("dns:///", "xds:///", "unix:", "unix-abstract:", "ipv4:", "ipv6:")  # gRPC's resolvers
_LOCAL_NAMES = ("unix:", "unix-abstract:")
_HOST = re.compile(r"[^\s/@?#:\[\]\\%]+")
_WANTED = "a server's address is HOST, HOST:PORT or [IPV6]:PORT"


def parse_target(text: str) -> str:
    """Parse a server's address into HOST:PORT; the port is 8500 where ``text`` has none.

    ``http://``, ``https://`` (see ``asks_for_tls``) and a trailing slash are dropped, an IPv6 address gets
    brackets. Names for gRPC's own resolvers, such as ``dns:///tubelet:8500``, are kept.

    Raises:
        ValueError: ``text`` is not an address; the message says why.
    """
    written = text.strip()
    if written.startswith(_GRPC_NAMES):
        return written
    scheme, separator, rest = written.rpartition("://")
    if separator and scheme.lower() not in _TLS_SCHEMES + _PLAIN_SCHEMES:
        raise ValueError(f"{_WANTED}; found {text!r}")
    host, port = _split(rest.rstrip("/"), text)
    return f"{host}:{port}"


def asks_for_tls(text: str) -> bool:
    """Tell whether a server's address asks for TLS: it begins with ``https://`` or ``grpcs://``."""
    scheme, separator, _ = text.strip().partition("://")
    return bool(separator) and scheme.lower() in _TLS_SCHEMES


def is_local(target: str) -> bool:
    """Tell whether a parsed address is one of this machine alone, so that nobody else sees what is sent."""
    if target.startswith(_LOCAL_NAMES):
        return True
    host = target.removeprefix("dns:///").rpartition(":")[0].strip("[]")
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _split(authority: str, text: str) -> tuple[str, int]:
    """Split ``authority`` into host and port; ``text`` is what the user wrote, for errors."""
    if _is_ipv6(authority):  # without brackets
        return f"[{authority}]", DEFAULT_PORT
    if authority.startswith("["):
        address, bracket, rest = authority[1:].partition("]")
        if not bracket or not _is_ipv6(address) or (rest and not rest.startswith(":")):
            raise ValueError(f"{_WANTED}; found {text!r}")
        return f"[{address}]", _port(rest[1:] if rest else None, text)
    host, colon, port = authority.partition(":")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{_WANTED}; found {text!r}")
    return host, _port(port if colon else None, text)


def _port(written: str | None, text: str) -> int:
    """Parse a port; None stands for the default port."""
    if written is None:
        return DEFAULT_PORT
    if not (written.isascii() and written.isdigit() and 0 < int(written) < 1 << 16):
        raise ValueError(f"a port is a number from 1 to 65535; found {written!r} in {text!r}")
    return int(written)


def _is_ipv6(text: str) -> bool:
    """Return whether ``text`` is an IPv6 address, without brackets."""
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def plain_host(text: str) -> str:
    """Return the host of the configuration without the brackets of an IPv6 address.

    Raises:
        ValueError: ``text`` is neither an address nor a name, or has a port.
    """
    bare = text.removeprefix("[").removesuffix("]") if text[:1] == "[" and text[-1:] == "]" else text
    try:
        if bare != text or ":" in bare:
            IPv6Address(bare)
        elif not bare or bare != "".join(bare.split()) or "/" in bare:
            raise ValueError
    except ValueError:
        raise ValueError("a host is an address or a name, such as ::, 127.0.0.1 or localhost") from None
    return bare
