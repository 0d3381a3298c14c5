"""The protocol between parent and worker: JSON objects, each preceded by its length, over a stream socket.

It never uses pickle: a worker that hostile bytes have taken over must not execute code in its parent. Each
message carries the number of its session (one video), so that a late message about one video is never taken
for one about the next. A descriptor follows its message over a second socket (SCM_RIGHTS).

    parent sends      with                                             worker responds
    probe             (descriptor of the upload)                       probed | rejected
    decode            plan, pixel format, slots (of shared memory)     unit ..., then end | rejected
    release           slot, and the decode run that it belongs to      nothing
    bytes_available   range of the file that can be read               nothing
    file_moved        (descriptor of the file that it moved to)        nothing
    stop                                                               stopped

While it owes a response, a worker may send ``bytes_needed``: it waits for bytes of a file that is still being
uploaded.

Unasked, a worker sends ``ready`` once, with the sandbox layers that it has entered, and ``heartbeat`` at
intervals while it works. Before it ends by itself, it sends ``out_of_memory``, or ``failed`` after a bug of
ours.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_MESSAGE_BYTES = 1 << 24  # the largest message is a plan of many ranges; a worker's messages are tiny
MAX_PACKET_BYTES = 256  # between the server and the fork server

_LENGTH = struct.Struct("!I")


class ProtocolError(Exception):
    """The other side sent something that violates the protocol."""


class VideoRejected(Exception):
    """A worker cannot or must not decode the video.

    ``reason`` is that of an error class in ``service.errors``, which workers do not import.
    """

    def __init__(self, reason: str, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata


def pack(message: dict[str, Any]) -> bytes:
    """Encode ``message`` as it goes over the socket."""
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


@dataclass(slots=True)
class Unpacker:
    """A decoder of messages from bytes that arrive in portions of any size."""

    max_bytes: int = MAX_MESSAGE_BYTES
    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield each message that ``data`` completes.

        Raises:
            ProtocolError: a message is too long or not a JSON object.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self.max_bytes:
                raise ProtocolError(
                    f"a message of {length} bytes exceeds the limit of {self.max_bytes} bytes"
                )
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield _parse(body)


def _parse(body: bytes) -> dict[str, Any]:
    """Parse the JSON object in ``body``."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a message is not JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError("a message is not a JSON object")
    return message
