"""The request id of a call: the client's, the trace's, or a new one."""

import re
from typing import Any, cast

import pytest

from tubelet.service.rpc.request_id import clean, find_request_id

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class _Context:
    """The part of gRPC's context that has the client's metadata."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


def found(*metadata: tuple[str, str]) -> str:
    return find_request_id(cast(Any, _Context(*metadata)))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ((("x-request-id", "abc-1"),), "abc-1"),
        ((("traceparent", TRACEPARENT),), TRACE),
        ((("traceparent", TRACEPARENT), ("x-request-id", "abc-1")), "abc-1"),
        ((("x-request-id", "first"), ("x-request-id", "second")), "first"),
        ((("x-request-id", ""), ("traceparent", TRACEPARENT)), TRACE),
        ((("traceparent", f"cc-{TRACE}-00f067aa0ba902b7-01-more"),), TRACE),
    ],
)
def test_id_of_the_client_comes_first(metadata: tuple[tuple[str, str], ...], expected: str) -> None:
    assert found(*metadata) == expected


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("traceparent", "00-" + 32 * "0" + "-00f067aa0ba902b7-01"),),
        (("traceparent", "nonsense"),),
        (("traceparent", TRACEPARENT.upper()),),
    ],
)
def test_an_id_is_made_where_none_is_sent(metadata: tuple[tuple[str, str], ...]) -> None:
    assert re.fullmatch("[0-9a-f]{32}", found(*metadata))
    assert found(*metadata) != found(*metadata)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a\r\nINFO x: y", "a%0D%0AINFO%20x:%20y"),
        ("\x00\x1b[31m\x7f", "%00%1B[31m%7F"),
        ("é\u2028\ud800", "%C3%A9%E2%80%A8?"),
        ("100%", "100%"),
        ("x" * (1 << 20), "x" * 128),
        ("\n" * (1 << 20), "%0A" * 42 + "%0"),
    ],
)
def test_hostile_ids_become_visible_ascii_of_limited_length(given: str, expected: str) -> None:
    assert clean(given) == expected[:128]
