"""The protocol between parent and worker: JSON messages, each preceded by its length, over a stream socket.

It never uses pickle: a worker that hostile bytes have taken over must not execute code in its parent, which
checks them (``pool/responses.py``). A message is the number of its session (one video), so that a late
message about one video is never taken for one about the next, and a value of one of the types below. A
descriptor follows its message over a second socket (SCM_RIGHTS).

    parent sends      with                                             worker responds
    Probe             (descriptor of the upload)                       Probed | Rejected
    Decode            (descriptor of the shared memory)                Unit ..., then End | Rejected
    Release                                                            nothing
    BytesAvailable                                                     nothing
    Stop                                                               Stopped

While it owes a response to ``Probe`` or ``Decode``, a worker may send ``BytesNeeded``: it waits for bytes of
a file that is still being uploaded.

Unasked, a worker sends ``Ready`` once, and ``Heartbeat`` at intervals while it works. Before it ends by
itself, it sends ``OutOfMemory``, or ``Failed`` after a bug of ours.
"""

import json
import struct
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tubelet.models.spec import Preprocessing
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import (
    MAX_THUMBNAIL_BYTES,
    MAX_THUMBNAILS,
    DecodeSummary,
    Protection,
    VideoMetadata,
)

MAX_TEXT = 500  # characters of any text that a worker sends
# The largest responses hold a video's metadata with its warnings, and its thumbnails in base64.
MAX_RESPONSE_BYTES = (1 << 13) + MAX_THUMBNAILS * (MAX_THUMBNAIL_BYTES * 4 // 3 + 128)
MAX_REQUEST_BYTES = 1 << 24  # the largest request is a plan of many ranges
MAX_PACKET_BYTES = 256  # between the server and the fork server

_LENGTH = struct.Struct("!I")

RejectionReason = Literal[
    "NOT_A_VIDEO", "UNSUPPORTED_VIDEO", "NO_VIDEO_STREAM", "CORRUPT_VIDEO", "VIDEO_TOO_LARGE"
]
"""The reasons of errors in ``service.errors`` that workers may report; they do not import that module."""


class ProtocolError(Exception):
    """The other side sent something that violates the protocol."""


class VideoRejected(Exception):
    """A worker cannot or must not decode the video; ``value`` exceeds ``limit`` if those are given."""

    def __init__(
        self,
        reason: RejectionReason,
        message: str,
        *,
        limit: int | float | None = None,
        value: int | float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason: RejectionReason = reason
        self.message = message
        self.limit = limit
        self.value = value


@dataclass(frozen=True, slots=True)
class Probe:
    """Request to begin a session with a video, and to find its metadata: with ``header_only``, its header's.

    ``size`` is None while the video is still being uploaded.
    """

    header_only: bool
    size: int | None
    is_whole: bool
    type: Literal["probe"] = "probe"


@dataclass(frozen=True, slots=True)
class Decode:
    """Request for decode run ``run``: decode ``plan`` into shared memory of ``slots`` units.

    ``thumbnails`` is the most thumbnails to return.
    """

    run: int
    slots: int
    plan: Plan
    preprocessing: Preprocessing
    fast: bool
    thumbnails: int = 0
    type: Literal["decode"] = "decode"


@dataclass(frozen=True, slots=True)
class Release:
    """Permission to write into ``slot`` again: its unit, of decode run ``run``, is no longer in use."""

    run: int
    slot: int
    type: Literal["release"] = "release"


@dataclass(frozen=True, slots=True)
class BytesAvailable:
    """Bytes [start, end) of the file that can be read now; ``size`` is that of the file, or None."""

    start: int
    end: int
    size: int | None
    type: Literal["bytes_available"] = "bytes_available"


@dataclass(frozen=True, slots=True)
class Stop:
    """Request to end the session."""

    type: Literal["stop"] = "stop"


@dataclass(frozen=True, slots=True)
class Ready:
    """Announcement that a worker can take videos, with the layers of the sandbox that it has entered."""

    protections: tuple[Protection, ...]
    type: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sign of progress."""

    type: Literal["heartbeat"] = "heartbeat"


@dataclass(frozen=True, slots=True)
class BytesNeeded:
    """Request for some of the bytes [start, end) of the file, without which the worker cannot go on."""

    start: int
    end: int
    type: Literal["bytes_needed"] = "bytes_needed"


@dataclass(frozen=True, slots=True)
class Probed:
    """Metadata of the session's video, and whether decoding can begin at any of its key frames.

    All of these are known then, and they are not rare.
    """

    metadata: VideoMetadata
    knows_key_frames: bool
    type: Literal["probed"] = "probed"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A ``VideoRejected`` that ended a probe or a decode run."""

    reason: RejectionReason
    message: str
    limit: int | float | None
    value: int | float | None
    type: Literal["rejected"] = "rejected"


@dataclass(frozen=True, slots=True)
class Unit:
    """Announcement that ``slot`` holds unit ``unit`` of grid ``grid`` of the plan."""

    grid: int
    unit: int
    slot: int
    type: Literal["unit"] = "unit"


@dataclass(frozen=True, slots=True)
class End:
    """Result of a decode run, after its last unit."""

    summary: DecodeSummary
    type: Literal["end"] = "end"


@dataclass(frozen=True, slots=True)
class Stopped:
    """Confirmation that the session has ended."""

    type: Literal["stopped"] = "stopped"


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """Last message of a worker that has used up its address space."""

    detail: str
    type: Literal["out_of_memory"] = "out_of_memory"


@dataclass(frozen=True, slots=True)
class Failed:
    """Last message of a worker that ends after an unexpected error."""

    detail: str
    type: Literal["failed"] = "failed"


Request = Probe | Decode | Release | BytesAvailable | Stop
Response = Ready | Heartbeat | BytesNeeded | Probed | Rejected | Unit | End | Stopped | OutOfMemory | Failed

_REQUESTS: dict[str, type[Request]] = {
    "probe": Probe,
    "decode": Decode,
    "release": Release,
    "bytes_available": BytesAvailable,
    "stop": Stop,
}


def pack(session_id: int, content: Request | Response) -> bytes:
    """Encode a message about session ``session_id`` as it goes over the socket."""
    body = _ENCODER.encode((session_id, content)).encode()
    return _LENGTH.pack(len(body)) + body


def parse_request(body: bytes) -> tuple[int, Request]:
    """Parse a message of the parent, which the worker trusts, into its session and its content."""
    session_id, content = json.loads(body)
    if content["type"] == "decode":
        plan = content["plan"]
        grids = tuple(SamplingGrid(**grid) for grid in plan["grids"])
        content["plan"] = Plan(grids, plan["is_unbounded"])
        content["preprocessing"] = Preprocessing(**_arrays_as_tuples(content["preprocessing"]))
    return session_id, _REQUESTS[content["type"]](**content)


def _arrays_as_tuples(table: dict[str, Any]) -> dict[str, Any]:
    """Return an object of JSON with its arrays as tuples, which frozen values hold."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _to_json(value: Any) -> dict[str, Any] | str:
    """Return the fields of a dataclass by name, or bytes in base64.

    ``dataclasses.asdict`` takes three times as long.
    """
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


_ENCODER = json.JSONEncoder(default=_to_json)


@dataclass(slots=True)
class Unpacker:
    """A splitter of the bytes that arrive, in portions of any size, into the JSON of each message."""

    max_bytes: int
    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each message that ``data`` completes.

        Raises:
            ProtocolError: a message is too long.
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
            yield body
