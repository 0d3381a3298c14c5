"""Protects the operator's network: connects to public addresses and to allowed networks only.

Each connection is checked by the address that it goes to, so that neither the spelling of a URI nor a name
whose address changes gets around the check.
"""

import socket
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_TRANSLATED = IPv6Network("64:ff9b::/96")  # embeds an IPv4 address, NAT64, RFC 6052
_LAST_32_BITS = (IPv6Network("::/96"), _TRANSLATED)  # the first: IPv4-compatible, RFC 4291
_UNICAST = IPv6Network("2000::/3")  # the public addresses of IPv6, by IANA's registry


class BlockedAddress(OSError):
    """The address is neither public nor in an allowed network; nothing was sent to it."""


def may_connect(address: str, networks: Iterable[Network]) -> bool:
    """Whether ``address``, and each one embedded in it, is public or in one of ``networks``."""
    return all(
        _is_public(each) or any(each in network for network in networks)
        for each in _embedded_addresses(ip_address(address))
    )


def filtering_socket_factory(networks: Iterable[Network]) -> Callable[[tuple[Any, ...]], socket.socket]:
    """Return a function that makes the socket for an address, as ``socket.getaddrinfo`` describes it.

    The function raises BlockedAddress if ``may_connect`` forbids the address.
    """

    def make(address_info: tuple[Any, ...]) -> socket.socket:
        """Make the socket for an address, if it may be connected to."""
        family, kind, protocol, _, (host, *_) = address_info
        if not may_connect(host, networks):
            raise BlockedAddress(f"{host} is neither public nor in fetch.allowed_private_networks")
        return socket.socket(family, kind, protocol)

    return make


def _is_public(address: Address) -> bool:
    """Return whether an address is public, by IANA's registries, and of one host."""
    is_given_out = isinstance(address, IPv4Address) or address in _UNICAST or address in _TRANSLATED
    return is_given_out and address.is_global and not address.is_multicast


def _embedded_addresses(address: Address) -> Iterator[Address]:
    """Yield the address, and the IPv4 addresses that it embeds."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped  # another spelling of the IPv4 address
        return
    yield address
    if any(address in network for network in _LAST_32_BITS):
        yield IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        yield address.sixtofour
    yield from address.teredo or ()
