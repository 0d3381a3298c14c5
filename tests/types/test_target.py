"""Addresses of servers, as users write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cli_process import tubelet
from tubelet.service.client import Client
from tubelet.service.types.target import asks_for_tls, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("localhost", "localhost:8500"),
        ("localhost:9", "localhost:9"),
        (" http://localhost:8500/ ", "localhost:8500"),
        ("HTTP://media.example.com", "media.example.com:8500"),
        ("grpc://10.0.0.1/", "10.0.0.1:8500"),
        ("https://host", "host:8500"),
        ("GRPCS://host:1/", "host:1"),
        ("[::1]:8501", "[::1]:8501"),
        ("[::1]", "[::1]:8500"),
        ("::1", "[::1]:8500"),
        ("http://[2001:db8::7]:80/", "[2001:db8::7]:80"),
        ("fe80::1%eth0", "[fe80::1%eth0]:8500"),
        ("my_host-1", "my_host-1:8500"),
        ("dns:///tubelet.clips.svc:8500", "dns:///tubelet.clips.svc:8500"),
        ("unix:/run/tubelet.sock", "unix:/run/tubelet.sock"),
    ],
)
def test_addresses_are_parsed(text: str, target: str) -> None:
    assert parse_target(text) == target
    assert parse_target(target) == target


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "HOST, HOST:PORT or"),
        (":8500", "HOST, HOST:PORT or"),
        ("http://", "HOST, HOST:PORT or"),
        ("http://host/path", "found 'http://host/path'"),
        ("user@host", "found 'user@host'"),
        ("ftp://host", "found 'ftp://host'"),
        ("[::1", "found '\\[::1'"),
        ("[::1]8500", "found"),
        ("[host]:8500", "found"),
        ("1:2:3", "a port is a number"),
        ("host:", "a port is a number from 1 to 65535; found '' in 'host:'"),
        ("host:0", "a port is a number"),
        ("host:65536", "a port is a number"),
        ("host:²", "a port is a number"),
    ],
)
def test_invalid_addresses_say_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_target(text)
    with pytest.raises(ValueError, match=says):
        Client(text)


@given(st.text(alphabet="a1:[]/.%@h tp", max_size=20))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        target = parse_target(text)
    except ValueError:
        return
    host, colon, port = target.rpartition(":")
    assert host
    assert colon
    assert 0 < int(port) < 65536
    assert parse_target(target) == target


def test_error_of_an_address_names_its_option() -> None:
    done = tubelet("models", "list", "--server", "ftp://localhost", COLUMNS="200")
    assert done.returncode == 2
    assert "'--server': a server's address is HOST, HOST:PORT or [IPV6]:PORT; found 'ftp://" in done.stderr


@pytest.mark.parametrize(
    ("text", "is_asked_for"),
    [("https://a", True), (" GRPCS://a:1", True), ("http://a", False), ("a", False), ("https", False)],
)
def test_scheme_asks_for_tls(text: str, is_asked_for: bool) -> None:
    assert asks_for_tls(text) is is_asked_for
