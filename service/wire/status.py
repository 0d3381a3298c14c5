"""Conversion of errors to rich gRPC statuses (google.rpc, AIP-193), and back for the client."""

from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tubelet.service.errors import TubeletError
from tubelet.service.types.tls import Tls
from tubelet.service.wire.connection_failure import connection_failure

DOMAIN = "tubelet"

REQUEST_ID = "x-request-id"
"""The metadata in which a client may send a request id, and in which the server returns the call's."""

# gRPC clients drop statuses of more than 8 KiB. A status holds the message three times: once percent-encoded,
# at up to three bytes for one, and twice in base64.
_MAX_MESSAGE_BYTES = 1000
_MAX_VALUE_BYTES = 200
_CUT = "…"


def to_status(error: TubeletError) -> grpc.Status:
    """Convert ``error`` to a gRPC status; long messages and values are cut.

    Its details are ErrorInfo, BadRequest if a field is at fault, and RetryInfo if a retry may succeed.
    """
    message = _cut(error.message, _MAX_MESSAGE_BYTES)
    metadata = {key: _cut(value, _MAX_VALUE_BYTES) for key, value in error.metadata.items()}
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.field:
        violation = BadRequest.FieldViolation(field=error.field, description=message)
        details.append(BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(RetryInfo(retry_delay=delay))
    status = Status(code=error.code.value[0], message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)


def _cut(text: str, max_bytes: int) -> str:
    """Cut ``text`` to at most ``max_bytes`` of UTF-8; an ellipsis marks the cut."""
    encoded = text.encode()
    if len(encoded) <= max_bytes:
        return text
    return encoded[: max_bytes - len(_CUT.encode())].decode(errors="ignore") + _CUT


class ServerError(Exception):
    """A call to a server failed; raised by the client.

    ``code`` is the name of the gRPC status code. ``reason`` is stable: the server's own, SERVER_UNREACHABLE,
    CONNECTION_LOST, or empty for errors of gRPC itself, such as a timeout. ``metadata`` holds the limit and
    the value found. ``retry_after_s`` is set if a retry after that time may succeed. ``request_id`` finds the
    call in the server's log; it is empty if no tubelet server answered.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        metadata: dict[str, str],
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{code} {reason}: {message}" if reason else f"{code}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = metadata
        self.retry_after_s = retry_after_s
        self.request_id = request_id


def mention_of(request_id: str, message: str) -> str:
    """Return what to write after an error's message, so that it names the request id; empty if it does."""
    return f" (request id {request_id})" if request_id and request_id not in message else ""


def from_rpc_error(error: grpc.RpcError, target: str, tls: Tls | None = None) -> ServerError:
    """Convert a gRPC error to a ServerError; without details from ``to_status``, describe the connection."""
    # Errors of both kinds of channel are calls too, which the types of grpc do not declare.
    call = cast(grpc.Call, error)
    reason, metadata, retry_after_s = "", {}, None
    status = rpc_status.from_call(call)
    for detail in status.details if status else ():
        info, retry = ErrorInfo(), RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    message = call.details() or ""
    if not reason and call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED):
        reason, message = connection_failure(call.code(), message, target, tls)
    request_id = str(dict(call.trailing_metadata() or ()).get(REQUEST_ID, ""))
    if call.code() is grpc.StatusCode.INTERNAL:
        message += mention_of(request_id, message)
    return ServerError(call.code().name, reason, message, metadata, retry_after_s, request_id)
