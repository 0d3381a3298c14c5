"""Calls with something wrong, made from seeds: their messages, their tokens or their headers."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any, Literal, get_args

import jwt
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.fuzz.mutate import mutant
from tests.support.identities import TOKENS
from tests.support.issuer import Issuer
from tests.support.raw_http2 import message
from tubelet.v1 import video_classifier_pb2 as pb

Kind = Literal["messages", "tokens", "headers"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Header = tuple[bytes, bytes]

ISSUER = Issuer()
KNOWN: Header = (b"authorization", f"Bearer {TOKENS['alice']}".encode())

_SERVICE = "/tubelet.v1.VideoClassifier/"
_METHODS: dict[str, type[Message]] = {
    f"{_SERVICE}Classify": pb.ClassifyRequest,
    f"{_SERVICE}ClassifyStreaming": pb.ClassifyStreamingRequest,
    f"{_SERVICE}Explain": pb.ExplainRequest,
    f"{_SERVICE}ListModels": pb.ListModelsRequest,
    f"{_SERVICE}GetModel": pb.GetModelRequest,
    "/grpc.health.v1.Health/Check": health_pb2.HealthCheckRequest,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": reflection_pb2.ServerReflectionRequest,
}
_GUARDED = tuple(each for each in _METHODS if each.startswith(_SERVICE))
_NUMBERS = (0, 1, -1, 2, 127, 128, 2**31 - 1, -(2**31), 2**32, 2**63 - 1, -(2**63))
_TEXTS = (
    "",
    "camera-motion",
    "nobody",
    "a" * 5000,
    "é\N{FILM FRAMES}",
    "\0\n\r",
    "file:///etc/passwd",
    "s3://b/k",
)
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Input:
    """A call: its path, its headers beside those of gRPC, and its frames of messages.

    ``must_fail`` says that who calls is not known. No answer and no line of the log may hold a ``secret``.
    """

    path: bytes
    headers: tuple[Header, ...]
    body: bytes
    must_fail: bool = False
    secrets: tuple[bytes, ...] = field(default=())


def make_input(kind: Kind, seed: int) -> Input:
    """Make the call of a seed."""
    return _MAKERS[kind](Random(f"{kind}-{seed}"))


def _with_wrong_messages(chance: Random) -> Input:
    """A call of somebody known, with messages of random fields, most of them changed in some bytes."""
    path = chance.choice(list(_METHODS))
    parts = [_message(_METHODS[path], chance) for _ in range(chance.choice((0, 1, 1, 1, 2, 4)))]
    if path in _GUARDED[:2] and chance.random() < 0.7:  # so that more come further than their first message
        parts.insert(0, _METHODS[path](options={}).SerializeToString())
    frames = [message(each, claims=_claim(each, chance)) for each in parts]
    body = b"".join(frames)
    if chance.random() < 0.1:
        body = mutant([body], chance.getrandbits(32)) if body else chance.randbytes(7)
    return Input(path.encode(), (KNOWN,), body)


def _message(kind: type[Message], chance: Random) -> bytes:
    """Return a serialized message of random fields; in most, some bytes are changed."""
    content = _filled(kind(), chance, 0).SerializeToString()
    if content and chance.random() < 0.6:
        content = mutant([content], chance.getrandbits(32))
    return content


def _claim(content: bytes, chance: Random) -> int | None:
    """Return the length that a frame says it has; None, the right one, in most cases."""
    return (
        None if chance.random() < 0.95 else chance.choice((0, len(content) // 2, len(content) + 1, 2**32 - 1))
    )


def _filled(part: Message, chance: Random, depth: int) -> Message:
    """Set some fields to random values, often extreme ones."""
    for each in part.DESCRIPTOR.fields:
        if chance.random() < 0.5:
            continue
        if each.type == FieldDescriptor.TYPE_MESSAGE:
            if depth < _DEEPEST:
                _fill_messages(part, each, chance, depth)
        elif each.is_repeated:
            getattr(part, each.name).extend(_value(each, chance) for _ in range(chance.randint(0, 3)))
        else:
            setattr(part, each.name, _value(each, chance))
    return part


def _fill_messages(part: Message, of: Any, chance: Random, depth: int) -> None:
    """Fill a field of messages."""
    if of.is_repeated:
        for _ in range(chance.choice((0, 1, 2, 50))):
            _filled(getattr(part, of.name).add(), chance, depth + 1)
    else:
        getattr(part, of.name).SetInParent()
        _filled(getattr(part, of.name), chance, depth + 1)


def _value(of: Any, chance: Random) -> Any:
    """Return a value that fits a field's type."""
    match of.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if of.type == FieldDescriptor.TYPE_BYTES:
            return chance.randbytes(chance.choice((0, 1, 40, 4000)))
        case FieldDescriptor.CPPTYPE_STRING:
            return chance.choice(_TEXTS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return chance.choice((0.0, -1.0, 1e300, 1e-300, float("nan"), float("inf")))
        case FieldDescriptor.CPPTYPE_ENUM:
            return chance.randint(0, 9)
        case FieldDescriptor.CPPTYPE_INT32:
            return chance.choice([each for each in _NUMBERS if -(2**31) <= each < 2**31])
        case FieldDescriptor.CPPTYPE_INT64:
            return chance.choice([each for each in _NUMBERS if -(2**63) <= each < 2**63])
        case _:
            return chance.choice([each for each in _NUMBERS if 0 <= each < 2**32])


def _with_wrong_token(chance: Random) -> Input:
    """A call with a token that is not right, of the file or of the issuer."""
    token = chance.choice((_wrong_text, _changed_jwt, _forged_jwt))(chance)
    header = (
        b"authorization",
        chance.choice((b"Bearer ", b"bearer ", b"BEARER\t", b"Bearer  ", b"")) + token,
    )
    headers = chance.choice(([header], [header, header], [KNOWN, header], [header, KNOWN]))
    if headers == [header] and chance.random() < 0.05:
        headers = [(b"authorization", b"Bearer " + token + b"," + KNOWN[1])]
    path = chance.choice(_GUARDED).encode()
    return Input(
        path, tuple(headers), message(b""), must_fail=True, secrets=(token,) if len(token) > 15 else ()
    )


def _wrong_text(chance: Random) -> bytes:
    """Return a token of the file with changed bytes, its hash, or any text."""
    right = TOKENS["alice"].encode()
    wrong = chance.choice(
        (
            lambda: mutant([right], chance.getrandbits(32)),
            lambda: right[: chance.randrange(len(right))],
            lambda: right + chance.randbytes(chance.randint(1, 5)),
            lambda: right.swapcase(),
            lambda: sha256(right).hexdigest().encode(),
            lambda: b"x" * chance.choice((0, 1, 4096, 4097, 7000)),
        )
    )()
    sent = _sendable(wrong)
    return sent if sent != right else b""


def _changed_jwt(chance: Random) -> bytes:
    """Return a token of the issuer with a change in what is signed, or in its signature."""
    header, claims, signature = ISSUER.token().encode().split(b".")
    place = chance.randrange(3)
    parts = [header, claims, signature]
    changed = _sendable(mutant([parts[place][: chance.choice((20, 1000))]], chance.getrandbits(32)))
    if place == 2 and _decoded(changed) == _decoded(signature):
        changed = b""
    parts[place] = changed if changed != parts[place] else b""
    return b".".join(parts)


def _forged_jwt(chance: Random) -> bytes:
    """Return a token whose header or claims say what they like; none is signed by the issuer's keys."""
    header: dict[str, Any] = {
        "alg": chance.choice(("none", "None", "HS256", "RS256", "ES256", "EdDSA", "", None, 1, ["RS256"])),
        "kid": chance.choice((ISSUER.rsa_id, ISSUER.ec_id, "../../etc/passwd", "", None, 7, {}, "x" * 900)),
        "typ": chance.choice(("JWT", None, [])),
        "jku": "https://localhost:1/keys",
        "jwk": {"kty": "oct", "k": "AAAA"},
        "crit": chance.choice((None, ["b64"])),
        "b64": chance.choice((True, False)),
    }
    wanted = {key: value for key, value in header.items() if chance.random() < 0.7}
    claims = ISSUER.claims(
        exp=chance.choice((1, -1, 2**70, 1e300, "never", None, [], float("inf"))),
        aud=chance.choice(("tubelet", None, [], ["tubelet"], "*", {})),
        sub=chance.choice(("alice", None, ["alice"], 5, "\n", "é")),
    )
    if chance.random() < 0.3:
        return jwt.encode(claims, "x" * 40, "HS256", {"kid": ISSUER.rsa_id}).encode()
    signature = chance.choice((b"", chance.randbytes(256), chance.randbytes(64)))
    return b".".join(map(_encoded, (json.dumps(wanted).encode(), json.dumps(claims).encode(), signature)))


def _with_wrong_headers(chance: Random) -> Input:
    """A call with odd headers; every second one is of nobody."""
    is_known = chance.random() < 0.5
    odd = [chance.choice(_ODD)(chance) for _ in range(chance.choice((1, 1, 2, 3, 8)))]
    headers = (*((KNOWN,) if is_known else ()), *odd)
    return Input(chance.choice(_GUARDED).encode(), headers, message(b""), must_fail=not is_known)


def _text(chance: Random) -> bytes:
    """Return a value of a header: bytes that HTTP/2 can carry, allowed or not."""
    return chance.choice(
        (
            b"",
            b" ",
            b'a" code=OK b',
            b"\r\nx-injected: 1",
            b"line\n2026-01-01T00:00:00.000Z INFO tubelet.call: call code=OK",
            b'{"time": "x"}',
            "é‮\N{FILM FRAMES}".encode(),
            b"x" * chance.choice((1, 127, 128, 129, 4000, 9000, 17_000, 70_000)),
            chance.randbytes(chance.randint(1, 60)),
        )
    )


_TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_ODD: tuple[Callable[[Random], Header], ...] = (
    lambda chance: (b"x-request-id", _text(chance)),
    lambda chance: (b"traceparent", chance.choice((mutant([_TRACE], chance.getrandbits(32)), _text(chance)))),
    lambda chance: (b"authorization", _text(chance)),
    lambda chance: (
        b"grpc-timeout",
        chance.choice((b"1n", b"0S", b"99999999H", b"-1S", b"1", _text(chance))),
    ),
    lambda chance: (
        b"grpc-encoding",
        chance.choice((b"gzip", b"deflate", b"identity", b"br", _text(chance))),
    ),
    lambda chance: (b"x-" + bytes(chance.choices(b"abc-09", k=5)) + b"-bin", _text(chance)),
    lambda chance: (
        chance.choice((b"X-Upper", b"a b", b"\xff", b":odd", b"", b"host", b"te")),
        _text(chance),
    ),
    lambda chance: (b"grpc-status-details-bin", base64.b64encode(_text(chance))),
    lambda chance: (b"content-type", chance.choice((b"application/grpc+json", b"text/html", _text(chance)))),
)


def _sendable(token: bytes) -> bytes:
    """Leave out what no header can hold, so that the server sees the rest."""
    return bytes(each for each in token if 0x20 <= each < 0x7F).strip()


def _encoded(data: bytes) -> bytes:
    """Encode as JWT does."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decoded(text: bytes) -> bytes | None:
    """Decode as lenient libraries do; None if that fails."""
    try:
        return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        return None


_MAKERS: dict[Kind, Callable[[Random], Input]] = {
    "messages": _with_wrong_messages,
    "tokens": _with_wrong_token,
    "headers": _with_wrong_headers,
}
