"""Addresses and ports at which the server listens, for gRPC and for HTTP alike.

``::`` and ``0.0.0.0`` both mean all addresses of the machine, IPv6 and IPv4, as in gRPC.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from errno import EADDRINUSE
from ipaddress import ip_address

import grpc

_LOOPBACK = ("::1", "127.0.0.1")  # RFC 6761 makes localhost both, whatever /etc/hosts says
_ATTEMPTS = 20  # to find a port that is free at each of several addresses


def resolve(host: str) -> tuple[str, ...]:
    """Return the addresses of this machine that ``host`` stands for.

    Raises:
        OSError: the name is unknown, or none of its addresses is one of this machine.
    """
    found = _LOOPBACK if host.lower() == "localhost" else tuple(dict.fromkeys(_looked_up(host)))
    if any(ip_address(address).is_unspecified for address in found):
        return ("::",) if _binds("::") is None else ("0.0.0.0",)
    refusals = {address: _binds(address) for address in found}
    ours = tuple(address for address, refusal in refusals.items() if refusal is None)
    if not ours:
        address, refusal = next(iter(refusals.items()))
        named = "" if address == host else f"{host}, which is "
        raise OSError(f"cannot listen on {named}{address}: {refusal}")
    return ours


def listed(addresses: Sequence[str]) -> str:
    """Return the addresses as text for people; a wildcard is "all addresses"."""
    if "::" in addresses:
        return "all addresses, IPv6 and IPv4"
    return "all addresses, IPv4 alone" if "0.0.0.0" in addresses else " and ".join(addresses)


def is_loopback(addresses: Sequence[str]) -> bool:
    """Tell whether only programs of this machine reach all of the addresses."""
    return all(ip_address(address).is_loopback for address in addresses)


def with_port(address: str, port: int) -> str:
    """Join an address and a port as URLs and gRPC write them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def bind(sock: socket.socket, address: str, port: int) -> None:
    """Bind a TCP socket; at ``::`` it takes IPv4 too.

    Raises:
        OSError: the address or the port cannot be bound.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
    (*_, where), *_ = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    sock.bind(where)


def family(address: str) -> socket.AddressFamily:
    """Return the address family of an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def choose_port(addresses: Sequence[str], port: int, flag: str) -> int:
    """Return a port that is free at all addresses: ``port``, or any one where that is 0.

    0 stays 0 for a single address: then the system picks one as it binds.

    Raises:
        OSError: the port cannot be bound. The sentence names ``flag``, which chooses another one.
    """
    if not port and len(addresses) == 1:
        return 0
    for _ in range(_ATTEMPTS):
        with ExitStack() as stack:
            found = port
            for address in addresses:
                sock = stack.enter_context(socket.socket(family(address), socket.SOCK_STREAM))
                try:
                    bind(sock, address, found)
                except OSError as error:
                    if port or error.errno != EADDRINUSE:
                        raise cannot_listen(address, found, flag, error) from error
                    break
                found = sock.getsockname()[1]
            else:
                return found
    raise OSError(f"cannot listen on {' and '.join(addresses)}: found no port that is free at all of them")


def bind_grpc(
    server: grpc.aio.Server,
    addresses: Sequence[str],
    port: int,
    flag: str,
    credentials: Callable[[], grpc.ServerCredentials] | None,
) -> int:
    """Bind a port of ``server`` at each address, and return it; ``credentials`` makes those of one address.

    Raises:
        OSError: the port cannot be bound. The sentence names ``flag``, which chooses another one.
    """
    # Bound once before gRPC does, which would not say what is wrong with an address.
    port = choose_port(addresses, port, flag)
    for address in addresses:
        where = with_port(address, port)
        try:
            if credentials is None:
                port = server.add_insecure_port(where)
            else:
                port = server.add_secure_port(where, credentials())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {where}: {error}") from error
    return port


def cannot_listen(address: str, port: int, flag: str, error: OSError) -> OSError:
    """Make the error of a socket that could not be bound, with the flag that helps."""
    remedy = f"; {flag} chooses another port" if error.errno == EADDRINUSE else ""
    return OSError(f"cannot listen on {with_port(address, port)}: {error.strerror}{remedy}")


def _looked_up(host: str) -> Iterator[str]:
    """Yield the IP addresses of ``host``.

    Raises:
        OSError: the name is unknown or malformed.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a valid host name"
        raise OSError(f"cannot listen on {host}: {why}") from error
    for *_, where in found:
        scope = where[3] if len(where) > 3 else 0  # of a link-local address: its interface
        yield f"{where[0]}%{scope}" if scope else str(where[0])


def _binds(address: str) -> str | None:
    """Return why no socket can be bound to ``address``, None if one can."""
    try:
        with socket.socket(family(address), socket.SOCK_STREAM) as sock:
            bind(sock, address, 0)
    except OSError as error:
        return error.strerror
    return None
