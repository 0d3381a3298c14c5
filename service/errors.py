"""Every error that a client can get, with its gRPC code and a stable reason.

    TubeletError
    ├── ClientError                     the request or its video is at fault
    │   ├── MalformedOption             INVALID_ARGUMENT     an option has a value that is not allowed
    │   ├── MalformedMessage            INVALID_ARGUMENT     a message cannot be parsed, or is too large
    │   ├── MessageOutOfOrder           INVALID_ARGUMENT     a chunk before the options, or options twice
    │   ├── Unauthenticated             UNAUTHENTICATED      no token or certificate of a known identity
    │   ├── RpcNotAllowed               PERMISSION_DENIED    the identity may not call this RPC
    │   ├── ModelNotAllowed             PERMISSION_DENIED    the identity may not use this model
    │   ├── PriorityNotAllowed          PERMISSION_DENIED    the identity may not ask for this priority
    │   ├── QuotaExceeded               RESOURCE_EXHAUSTED   the identity has used up a quota; retry later
    │   │   └── BytesQuotaExceeded      RESOURCE_EXHAUSTED   the same, in the middle of a video
    │   ├── UploadIdleTimeout           DEADLINE_EXCEEDED    no byte of the upload arrived for too long
    │   ├── AnswerIdleTimeout           DEADLINE_EXCEEDED    the client read no event for too long
    │   ├── EmptyUpload                 INVALID_ARGUMENT     the video has no bytes
    │   ├── NotAVideo                   INVALID_ARGUMENT     no media file of a known format
    │   ├── UnsupportedVideo            INVALID_ARGUMENT     a known, but unsupported container or codec
    │   ├── NoVideoStream               INVALID_ARGUMENT     the file has sound or cover art only
    │   ├── CorruptVideo                INVALID_ARGUMENT     no frame of the video can be decoded
    │   ├── UnknownModel                NOT_FOUND            the server has no such model
    │   ├── UriNotAllowed               PERMISSION_DENIED    server or identity may not have this URI read
    │   ├── UriNotFound                 NOT_FOUND            no file at the URI, or the server may not read it
    │   ├── UriChanged                  ABORTED              the file at the URI changed while it was read
    │   ├── UploadTooLarge              RESOURCE_EXHAUSTED   the video has more bytes than the limit
    │   └── VideoTooLarge               FAILED_PRECONDITION  more pixels, frames, time or memory than allowed
    ├── FetchFailed                     UNAVAILABLE          the server of the URI failed or did not answer
    ├── Overloaded                      RESOURCE_EXHAUSTED   too many videos in flight; retry later
    │   ├── ClientOverloaded            RESOURCE_EXHAUSTED   too many videos of this client in flight
    │   └── DeadlineTooShort            RESOURCE_EXHAUSTED   the answer would come after the call's deadline
    ├── StorageFull                     RESOURCE_EXHAUSTED   the server's disk is full; retry later
    ├── ServerStopped                   UNAVAILABLE          the server shut down before it could answer
    ├── NoDevice                        UNAVAILABLE          every device that has the model failed
    ├── DecoderCrashed                  INTERNAL             the decode worker crashed or hung on this video
    └── InternalError                   INTERNAL             a fault of the server; the client gets an id

Those of explanations stand in explanation_errors.py. Messages are written for the client. Only InternalError
has a fixed text, since its cause may be confidential.
"""

from typing import ClassVar

import grpc


class TubeletError(Exception):
    """The base of all errors that a client can get.

    ``message`` is the sentence for the client. ``reason`` is the stable ``ErrorInfo.reason``. ``field`` names
    the option at fault, if one is. ``metadata`` holds the limit and the value found. ``before_work`` is true
    for errors that reject a request before its video is read; those of messages may also come later, and then
    the request counts as failed. ``retry_after_s`` is set where a retry after that time may succeed.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: str = "INTERNAL"
    before_work: ClassVar[bool] = False
    retry_after_s: float | None = None

    def __init__(self, message: str, *, field: str = "", **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.metadata = {key: str(value) for key, value in metadata.items()}


class ClientError(TubeletError):
    """The base of errors whose cause is the request or its video."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class MalformedOption(ClientError):
    """An option has a value that is not allowed; ``field`` names the option."""

    reason = "MALFORMED_OPTION"
    before_work = True


class MalformedMessage(ClientError):
    """A message is not one of the method's type, or is too large."""

    reason = "MALFORMED_MESSAGE"
    before_work = True


class MessageOutOfOrder(ClientError):
    """The messages of an upload are not its options, once, and then chunks."""

    reason = "MESSAGE_OUT_OF_ORDER"
    before_work = True


class Unauthenticated(ClientError):
    """The call has no token or certificate of an identity that the server knows."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"
    before_work = True


class RpcNotAllowed(ClientError):
    """The identity may not call this RPC."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "RPC_NOT_ALLOWED"
    before_work = True


class ModelNotAllowed(ClientError):
    """The identity may not use this model."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "MODEL_NOT_ALLOWED"
    before_work = True


class PriorityNotAllowed(ClientError):
    """The identity may not ask for this priority."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PRIORITY_NOT_ALLOWED"
    before_work = True


class QuotaExceeded(ClientError):
    """The identity has used up its ``quota``; ``retry_after_s`` is None where no retry can succeed."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "QUOTA_EXCEEDED"
    before_work = True

    def __init__(self, message: str, *, quota: str, retry_after_s: float | None, **metadata: object) -> None:
        super().__init__(message, field="", quota=quota, **metadata)
        self.quota = quota
        self.retry_after_s = retry_after_s


class BytesQuotaExceeded(QuotaExceeded):
    """The bytes of a video used up the quota of its identity while they arrived."""

    before_work = False


class UploadIdleTimeout(ClientError):
    """No byte of an upload arrived within the idle timeout."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "UPLOAD_IDLE_TIMEOUT"


class AnswerIdleTimeout(ClientError):
    """The client did not read the next event of a streamed answer within the idle timeout."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "ANSWER_IDLE_TIMEOUT"


class EmptyUpload(ClientError):
    """The video has no bytes."""

    reason = "EMPTY_UPLOAD"


class NotAVideo(ClientError):
    """The file is not a media file of a known format."""

    reason = "NOT_A_VIDEO"


class UnsupportedVideo(ClientError):
    """The container or codec is known, but not supported, or the video is encrypted."""

    reason = "UNSUPPORTED_VIDEO"


class NoVideoStream(ClientError):
    """The file has no video stream, but only sound or cover art."""

    reason = "NO_VIDEO_STREAM"


class CorruptVideo(ClientError):
    """The video stream is damaged so that no frame that is needed can be decoded."""

    reason = "CORRUPT_VIDEO"


class UnknownModel(ClientError):
    """The server has not loaded a model of this name and version."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "UNKNOWN_MODEL"
    before_work = True


class UriNotAllowed(ClientError):
    """The server or the identity may not read the URI, or the server not one that it redirects to."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "URI_NOT_ALLOWED"
    before_work = True


class UriNotFound(ClientError):
    """There is no file at the URI, or the server may not read it."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "URI_NOT_FOUND"


class UriChanged(ClientError):
    """The file at the URI was replaced while the server read it."""

    code = grpc.StatusCode.ABORTED
    reason = "URI_CHANGED"


class UploadTooLarge(ClientError):
    """The video has more bytes than ``upload.max_bytes``."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "UPLOAD_TOO_LARGE"


class VideoTooLarge(ClientError):
    """The video exceeds a limit on pixels, frames, duration, windows, memory, decoding time or embeddings."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "VIDEO_TOO_LARGE"


class FetchFailed(TubeletError):
    """The server of the URI failed, or could not be reached.

    The message does not distinguish a blocked address, an unknown host and a closed port: a client could scan
    the server's network by it.
    """

    code = grpc.StatusCode.UNAVAILABLE
    reason = "FETCH_FAILED"


class Overloaded(TubeletError):
    """The server has as many videos in flight as it may have; a retry after ``retry_after_s`` may succeed."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"
    before_work = True

    def __init__(self, message: str, *, retry_after_s: float, **metadata: object) -> None:
        super().__init__(message, field="", **metadata)
        self.retry_after_s = retry_after_s


class ClientOverloaded(Overloaded):
    """This client has as many videos in flight as it may have."""

    reason = "CLIENT_OVERLOADED"


class DeadlineTooShort(Overloaded):
    """The answer is predicted to come after the call's deadline."""

    reason = "DEADLINE_TOO_SHORT"


class StorageFull(TubeletError):
    """The server has no room to store the video; other videos free theirs when they are answered."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "STORAGE_FULL"
    retry_after_s = 5.0


class DecoderCrashed(TubeletError):
    """The decode worker crashed or hung while it decoded this video."""

    reason = "DECODER_CRASHED"


class ServerStopped(TubeletError):
    """The server shut down before it could answer; another server, or this one restarted, may answer."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "SERVER_STOPPED"
    retry_after_s = 1.0


class NoDevice(TubeletError):
    """Every device that has the model failed."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "NO_DEVICE"


class InternalError(TubeletError):
    """An unexpected error of the server; its log has the traceback under ``request_id``."""

    def __init__(self, request_id: str) -> None:
        message = f"internal error; ask the operator for log entry {request_id}"
        super().__init__(message, request_id=request_id)
