"""Every error that a client can meet. Each knows its gRPC code and a stable reason.

    TubeletError
    ├── ClientError                     what the client sent or asked for
    │   ├── MalformedOption             INVALID_ARGUMENT     an option that makes no sense
    │   ├── MalformedMessage            INVALID_ARGUMENT     not a message of the method, or too large a one
    │   ├── MessageOutOfOrder           INVALID_ARGUMENT     a chunk before the options, or options twice
    │   ├── UploadIdleTimeout           DEADLINE_EXCEEDED    no byte for too long
    │   ├── EmptyUpload                 INVALID_ARGUMENT     no bytes
    │   ├── NotAVideo                   INVALID_ARGUMENT     not a media file that we know
    │   ├── UnsupportedVideo            INVALID_ARGUMENT     known, but not taken: container, codec
    │   ├── NoVideoStream               INVALID_ARGUMENT     sound only, or cover art only
    │   ├── CorruptVideo                INVALID_ARGUMENT     a video stream of which nothing decodes
    │   ├── UnknownModel                NOT_FOUND
    │   ├── UriNotAllowed               PERMISSION_DENIED    this server does not fetch from there
    │   ├── UriNotFound                 NOT_FOUND            no file, or none that this server may read
    │   ├── UriChanged                  ABORTED              another file came there while it was read
    │   ├── UploadTooLarge              RESOURCE_EXHAUSTED   more bytes than the limit
    │   └── VideoTooLarge               FAILED_PRECONDITION  more pixels, frames, time, memory than allowed
    ├── FetchFailed                     UNAVAILABLE          where the video is does not answer as it should
    ├── Overloaded                      RESOURCE_EXHAUSTED   too many videos in flight; retry later
    │   ├── ClientOverloaded            RESOURCE_EXHAUSTED   too many videos of this client in flight
    │   └── DeadlineTooShort            RESOURCE_EXHAUSTED   the answer would come too late; retry later
    ├── StorageFull                     RESOURCE_EXHAUSTED   the server's disk has no room; retry later
    ├── ServerStopped                   UNAVAILABLE          it ends, and did not have the time; try another
    ├── NoDevice                        UNAVAILABLE          every device that has the model failed
    ├── DecoderCrashed                  INTERNAL             the worker crashed or hung
    └── InternalError                   INTERNAL             ours; the client sees a fixed text and an id

The message of every class but InternalError is written for the client.
"""

from collections.abc import Sequence
from typing import ClassVar

import grpc

_MAX_QUOTED = 100  # characters of what a client sent
_MAX_LISTED = 20  # names of what there is


class TubeletError(Exception):
    """The root. ``reason`` is the stable ErrorInfo.reason; ``metadata`` holds limits and values found.

    ``before_work`` errors refuse a request before its body is read; where ``retry_after_s`` is set, trying
    again then may help.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    before_work: ClassVar[bool] = False
    retry_after_s: float | None = None

    def __init__(self, message: str, *, field: str = "", **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.metadata = {key: str(value) for key, value in metadata.items()}


class ClientError(TubeletError):
    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class MalformedOption(ClientError):
    reason = "MALFORMED_OPTION"
    before_work = True


class MalformedMessage(ClientError):
    reason = "MALFORMED_MESSAGE"
    before_work = True


class MessageOutOfOrder(ClientError):
    reason = "MESSAGE_OUT_OF_ORDER"
    before_work = True


class UploadIdleTimeout(ClientError):
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "UPLOAD_IDLE_TIMEOUT"


class EmptyUpload(ClientError):
    reason = "EMPTY_UPLOAD"


class NotAVideo(ClientError):
    reason = "NOT_A_VIDEO"


class UnsupportedVideo(ClientError):
    reason = "UNSUPPORTED_VIDEO"


class NoVideoStream(ClientError):
    reason = "NO_VIDEO_STREAM"


class CorruptVideo(ClientError):
    reason = "CORRUPT_VIDEO"


class UnknownModel(ClientError):
    code = grpc.StatusCode.NOT_FOUND
    reason = "UNKNOWN_MODEL"
    before_work = True


class UriNotAllowed(ClientError):
    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "URI_NOT_ALLOWED"
    before_work = True


class UriNotFound(ClientError):
    code = grpc.StatusCode.NOT_FOUND
    reason = "URI_NOT_FOUND"


class UriChanged(ClientError):
    code = grpc.StatusCode.ABORTED
    reason = "URI_CHANGED"


class UploadTooLarge(ClientError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "UPLOAD_TOO_LARGE"


class VideoTooLarge(ClientError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "VIDEO_TOO_LARGE"


class FetchFailed(TubeletError):
    """It tells a refused address, an unknown name and a closed port not apart: that would map a network."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "FETCH_FAILED"


class Overloaded(TubeletError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"
    before_work = True

    def __init__(self, message: str, *, retry_after_s: float, **metadata: object) -> None:
        super().__init__(message, field="", **metadata)
        self.retry_after_s = retry_after_s


class ClientOverloaded(Overloaded):
    reason = "CLIENT_OVERLOADED"


class DeadlineTooShort(Overloaded):
    reason = "DEADLINE_TOO_SHORT"


class StorageFull(TubeletError):
    """The server has no room to store the video: other videos free theirs when they are answered."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "STORAGE_FULL"
    retry_after_s = 5.0


class DecoderCrashed(TubeletError):
    reason = "DECODER_CRASHED"


class ServerStopped(TubeletError):
    """Another one may be there: at once behind the same name, soon where this one begins anew."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "SERVER_STOPPED"
    retry_after_s = 1.0


class NoDevice(TubeletError):
    code = grpc.StatusCode.UNAVAILABLE
    reason = "NO_DEVICE"


class InternalError(TubeletError):
    """Built where an unexpected exception is caught and logged under ``error_id``."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"internal error; ask the operator for log entry {error_id}", error_id=error_id)


def quoted(text: str) -> str:
    """For a message: of what is long, the beginning."""
    return repr(text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…")


def listed(names: Sequence[str]) -> str:
    """For a message: of many names, the first ones, and how many more there are."""
    more = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def reasons() -> frozenset[str]:
    """All reasons of the tree: the closed set of the ``reason`` label in the metrics."""
    found, pending = set(), [TubeletError]
    while pending:
        error = pending.pop()
        found.add(error.reason)
        pending += error.__subclasses__()
    return frozenset(found)
