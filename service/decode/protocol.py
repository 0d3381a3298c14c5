"""What parent and worker say to each other: JSON objects, each behind its length, over a stream socket.

Never pickle: a worker that hostile bytes have taken over must not execute code in its parent. Each message
carries the number of the job (one video) that it belongs to, so that none of the last video is taken for
one of the next. A descriptor follows its message over a second socket (SCM_RIGHTS).

    parent says   with                                            worker answers
    probe         (descriptor of the upload)                      metadata | refused
    decode        plan, pixel format, slots (shared memory)       unit ..., then end | refused
    release       slot                                            nothing
    have          bytes of the file that are there                nothing
    file          (descriptor of the upload, moved)               nothing
    stop                                                          stopped

While it owes an answer, a worker may say ``need``: it waits for bytes of a file that is still on its way.

Unasked, a worker says ``ready`` once, with what protects the rest from it, ``alive`` every now and then
while it works, and before it ends ``exhausted`` for want of memory or ``failed`` for a mistake of ours.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_MESSAGE_BYTES = 1 << 24  # a plan of many ranges is the largest message; a worker's are tiny
MAX_PACKET_BYTES = 256  # between the server and the fork server

_LENGTH = struct.Struct("!I")


class ProtocolError(Exception):
    """The other side said something that makes no sense."""


class Refusal(Exception):
    """Why a worker does not take a video: the reason of a class in ``service.errors``, not imported."""

    def __init__(self, reason: str, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata


def pack(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


@dataclass(slots=True)
class Unpacker:
    """Bytes as they arrive, in any portions -> the messages that are complete."""

    max_bytes: int = MAX_MESSAGE_BYTES
    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield each message that ``data`` completes.

        Raises:
            ProtocolError: a message that is too long or not a JSON object.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self.max_bytes:
                raise ProtocolError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield _parse(body)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a message that is not JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError("a message that is not an object")
    return message
