"""Connections go to public addresses and allowed networks only, in whatever spelling."""

import socket
from ipaddress import ip_network

import pytest

from tubelet.service.ingest.ssrf_guard import BlockedAddress, filtering_socket_factory, may_connect

_NETWORKS = (ip_network("10.1.0.0/16"), ip_network("fd00:1::/32"))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",  # carrier-grade NAT
        "169.254.169.254",  # where clouds keep credentials
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%2",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::7f00:1",  # a translator's of one's own, RFC 8215
        "::ffff:0:7f00:1",  # RFC 2765
        "fec0::1",  # site-local of old
        "4000::1",  # nobody's
        "2002:a00:1::1",  # 6to4 of 10.0.0.1
        "2001:0:102:304::f5ff:fffe",  # Teredo of 10.0.0.1
    ],
)
def test_private_addresses_are_refused(address: str) -> None:
    assert not may_connect(address, ())
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pytest.raises(BlockedAddress):
        filtering_socket_factory(())((family, socket.SOCK_STREAM, 0, "", (address, 80)))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert may_connect(address, ())


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fd00:1::5", True),
        ("64:ff9b::10.1.2.3", True),
        ("10.2.0.1", False),
        ("127.0.0.1", False),
        ("1.1.1.1", True),
    ],
)
def test_allowed_networks_and_public_addresses_pass(address: str, may: bool) -> None:
    assert may_connect(address, _NETWORKS) == may


def test_socket_is_made_for_an_allowed_address() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("10.1.2.3", 80))
    with filtering_socket_factory(_NETWORKS)(info) as made:
        assert made.family == socket.AF_INET
