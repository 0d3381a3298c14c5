"""Connections of the gRPC ports: their count, as clients come and go, and the warning near their limit."""

import logging
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from time import monotonic

import pytest

from tests.support.listening import needs_ipv6
from tests.support.running_server import Served, serving, wait_until
from tubelet.service.server import connections
from tubelet.service.server.connections import NearLimit, count_connections
from tubelet.service.server.listening import bind, family


def test_metric_follows_clients_that_come_and_go() -> None:
    with serving(server={"max_connections": 7}) as served:
        address = served.target
        assert served.metric("tubelet_connections", address=address) == 0
        assert served.metric("tubelet_connections_limit") == 7
        with ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(_connected(served))
            wait_until(served, "tubelet_connections", 5, address=address)
        wait_until(served, "tubelet_connections", 0, address=address)


def test_one_warning_tells_of_connections_near_the_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "_INTERVAL_S", 0.01)
    with serving(server={"max_connections": 3}) as served, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(_connected(served))
        end_s = monotonic() + 60
        while not (lines := _warnings(caplog)):
            assert monotonic() < end_s
        wait_until(served, "tubelet_connections", 3, address=served.target)
    assert lines == [
        f"3 connections are open at {served.target}; above server.max_connections, 3, each new one is "
        "closed at once"
    ]
    assert _warnings(caplog) == lines


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ([{"a": 89}, {"a": 90}, {"a": 100}, {"a": 70}, {"a": 95}], [[], ["a"], [], [], []]),
        ([{"a": 90}, {"a": 69}, {"a": 90}], [["a"], [], ["a"]]),
        ([{"a": 90, "b": 0}, {"a": 90, "b": 99}], [["a"], ["b"]]),
    ],
)
def test_an_address_is_near_its_limit_once(counts: list[Mapping[str, int]], found: list[list[str]]) -> None:
    near = NearLimit(100)
    assert [near.reached(each) for each in counts] == found


@needs_ipv6
@pytest.mark.parametrize(
    ("listening", "to", "counted"),
    [
        ("::", "127.0.0.1", {"::": 1}),
        ("::", "::1", {"::": 1}),
        ("127.0.0.1", "127.0.0.1", {"127.0.0.1": 1, "::1": 0}),
        ("::1", "::1", {"127.0.0.1": 0, "::1": 1}),
    ],
)
def test_connections_count_at_the_address_that_they_are_to(
    listening: str, to: str, counted: dict[str, int]
) -> None:
    with socket.socket(family(listening), socket.SOCK_STREAM) as server:
        bind(server, listening, 0)
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection((to, port)), server.accept()[0]:
            found = count_connections(tuple(counted), [port])
    assert list(found.values()) == list(counted.values())


def _connected(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.server.port), timeout=60)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == connections.logger.name and record.levelno == logging.WARNING
    ]
