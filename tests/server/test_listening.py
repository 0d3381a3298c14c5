"""Hosts: how they are written, which addresses they stand for, and errors of those that cannot be bound."""

import socket
import subprocess
import sys

import pytest

from tests.support.listening import needs_ipv6
from tubelet.service.config.config import load_config
from tubelet.service.config.problems import BadConfig
from tubelet.service.server.listening import bind, choose_port, family, listed, resolve, with_port

# The kernel of this process knows no IPv6, as one that was booted with ipv6.disable=1.
_WITHOUT_IPV6 = """
import errno, socket, grpc, seccompy
from concurrent.futures import ThreadPoolExecutor
from seccompy import ArgCmp, CmpOp
from tubelet.service.server.listening import listed, resolve, with_port

calls = seccompy.Filter()
calls.errno("socket", errno.EAFNOSUPPORT, args=[ArgCmp(0, CmpOp.EQ, socket.AF_INET6)])
calls.load()
addresses = resolve("::")
assert grpc.server(ThreadPoolExecutor()).add_insecure_port(with_port(*addresses, 0))
print(addresses, resolve("localhost"), listed(addresses))
resolve("::1")
"""


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("::", "::"),
        ("[::]", "::"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("0.0.0.0", "0.0.0.0"),
        ("localhost", "localhost"),
        ("tubelet.example.com", "tubelet.example.com"),
    ],
)
def test_brackets_around_a_host_are_dropped(written: str, host: str) -> None:
    assert load_config(server={"host": written}).server.host == host


@pytest.mark.parametrize(
    "written", ["", "localhost:80", "[::1]:80", "[localhost]", "[::1", "a b", "http://localhost", "::g"]
)
def test_invalid_host_is_refused_with_examples(written: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load_config(server={"host": written})
    assert caught.value.problems == (
        f"server.host: a host is an address or a name, such as ::, 127.0.0.1 or localhost; found {written!r}",
    )


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("::", ("::",)),
        ("0.0.0.0", ("::",)),
        ("::1", ("::1",)),
        ("127.0.0.1", ("127.0.0.1",)),
        ("localhost", ("::1", "127.0.0.1")),
    ],
)
def test_host_is_resolved_to_its_addresses(host: str, addresses: tuple[str, ...]) -> None:
    assert resolve(host) == addresses


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("nosuch.invalid", "cannot listen on nosuch.invalid: "),
        ("192.0.2.77", "cannot listen on 192.0.2.77: Cannot assign requested address"),
        ("a" * 70 + ".example", "it is not a valid host name"),
    ],
)
def test_error_of_an_unbindable_host_says_why(host: str, says: str) -> None:
    with pytest.raises(OSError, match=says):
        resolve(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::"])
def test_chosen_port_is_free_at_each_address(host: str) -> None:
    addresses = resolve(host)
    port = choose_port(addresses, 0, "--port")
    for address in addresses:
        with socket.socket(family(address)) as sock:
            bind(sock, address, port)


def test_port_taken_at_one_of_several_addresses_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"{port}: Address already in use; --port chooses another port$"):
            choose_port(resolve("localhost"), port, "--port")


@pytest.mark.parametrize(
    ("addresses", "text"),
    [
        (("::",), "all addresses, IPv6 and IPv4"),
        (("0.0.0.0",), "all addresses, IPv4 alone"),
        (("::1", "127.0.0.1"), "::1 and 127.0.0.1"),
    ],
)
def test_addresses_are_listed_in_words(addresses: tuple[str, ...], text: str) -> None:
    assert listed(addresses) == text


def test_ipv6_addresses_get_brackets_before_a_port() -> None:
    assert (with_port("::1", 8500), with_port("127.0.0.1", 8500)) == ("[::1]:8500", "127.0.0.1:8500")


def test_default_host_is_ipv4_alone_without_ipv6() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_IPV6], capture_output=True, text=True, check=False)
    if "seccompy.errors" in done.stderr:
        pytest.skip("this kernel has no seccomp filters")
    assert done.stdout == "('0.0.0.0',) ('127.0.0.1',) all addresses, IPv4 alone\n", done.stderr
    assert "cannot listen on ::1: Address family not supported by protocol" in done.stderr
