"""The protocol between server and worker: framing, encoding, and the check of a worker's messages."""

import json
import math
from dataclasses import asdict
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.decode_messages import LENGTH, METADATA, REQUESTS, RESPONSES, frame
from tubelet.service.decode.pool.responses import parse_response
from tubelet.service.decode.protocol import (
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    ProtocolError,
    Request,
    Response,
    Unpacker,
    pack,
    parse_request,
)

_numbers = st.integers() | st.floats()
_json = st.recursive(
    st.none() | st.booleans() | _numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def _json_object(response: Response) -> dict[str, Any]:
    """Return the object of JSON for a response."""
    return json.loads(pack(7, response)[LENGTH.size :])[1]


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 40))
def test_messages_survive_any_split_of_the_stream(messages: list[bytes], portion: int) -> None:
    data = b"".join(frame(message) for message in messages)
    unpacker = Unpacker(50)
    portions = [data[start : start + portion] for start in range(0, len(data), portion)]
    assert [message for part in portions for message in unpacker.feed(part)] == messages


def test_oversized_message_is_rejected_by_its_length() -> None:
    with pytest.raises(ProtocolError):
        list(Unpacker(1 << 16).feed(LENGTH.pack((1 << 16) + 1)))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.type)
def test_requests_survive_their_encoding(request_: Request) -> None:
    (body,) = Unpacker(MAX_REQUEST_BYTES).feed(pack(7, request_))
    assert parse_request(body) == (7, request_)


@pytest.mark.parametrize("response", RESPONSES, ids=lambda response: response.type)
def test_responses_survive_their_encoding(response: Response) -> None:
    (body,) = Unpacker(MAX_RESPONSE_BYTES).feed(pack(7, response))
    assert parse_response(body) == (7, response)


def test_every_type_of_message_is_tested() -> None:
    assert {type(each) for each in REQUESTS} == set(get_args(Request))
    assert {type(each) for each in RESPONSES} == set(get_args(Response))


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b"\xff",
        b"[" * 60_000,
        b"1" * 60_000,
        b"[7]",
        b'[7, {"type": "stopped"}, 1]',
        b'{"session": 7, "type": "stopped"}',
        b'["7", {"type": "stopped"}]',
        b'[7.0, {"type": "stopped"}]',
        b'[true, {"type": "stopped"}]',
        b"[7, {}]",
        b'[7, {"type": ["unit"]}]',
        b'[7, {"type": "decode"}]',
        b'[7, {"type": "ready", "protections": ["prayer"]}]',
        b'[7, {"type": "ready", "protections": "seccomp"}]',
        b'[7, {"type": "rejected", "reason": "INTERNAL", "message": "", "limit": 1, "value": 1}]',
        b'[7, {"type": "rejected", "reason": "CORRUPT_VIDEO", "message": "", "limit": "1", "value": 1}]',
        b'[7, {"type": "rejected", "reason": "CORRUPT_VIDEO", "message": "", "limit": NaN, "value": 1}]',
        b'[7, {"type": "rejected", "reason": "CORRUPT_VIDEO", "message": "\\ud800", "limit": 1, "value": 1}]',
        b'[7, {"type": "failed", "detail": "%s"}]' % (b"x" * 501),
    ],
    ids=lambda body: body[:60],
)
def test_invalid_message_is_rejected(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_response(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("width", 1 << 31),
        ("height", -1),
        ("height", 2.0),
        ("height", "2"),
        ("fps", math.nan),
        ("fps", math.inf),
        ("fps", "1"),
        ("frames", -1),
        ("frames", 10**400),
        ("frames", True),
        ("frames", None),
        ("duration_ns", 1 << 63),
        ("size_bytes", 1e3),
        ("codec", 5),
        ("codec", "x" * 501),
        ("warnings", "odd"),
        ("warnings", [["odd"]]),
        ("warnings", ["x" * 501]),
        ("more", 1),
    ],
)
def test_invalid_metadata_is_rejected(field: str, value: object) -> None:
    for content in (
        {"type": "probed", "knows_key_frames": True, "metadata": {**asdict(METADATA), field: value}},
        {
            "type": "end",
            "summary": {
                "end_ns": 5,
                "frames_decoded": 1,
                "warnings": [],
                "metadata": {**asdict(METADATA), field: value},
            },
        },
    ):
        with pytest.raises(ProtocolError):
            parse_response(json.dumps([7, content]).encode())


@pytest.mark.parametrize("response", RESPONSES, ids=lambda response: response.type)
def test_missing_and_extra_fields_are_rejected(response: Response) -> None:
    content = _json_object(response)
    for changed in (
        {**content, "more": 1},
        *({key: content[key] for key in content if key != missing} for missing in content),
    ):
        with pytest.raises(ProtocolError):
            parse_response(json.dumps([7, changed]).encode())


@given(response=st.sampled_from(RESPONSES), number=st.integers(0, 9), value=_json)
def test_any_value_of_a_field_is_accepted_as_its_type_or_rejected(
    response: Response, number: int, value: object
) -> None:
    content = _json_object(response)
    content[list(content)[number % len(content)]] = value
    try:
        _, parsed = parse_response(json.dumps([7, content]).encode())
    except ProtocolError:
        return
    assert type(parsed) is type(response) or content["type"] != response.type
    assert pack(7, parsed)
