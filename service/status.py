"""Errors as rich gRPC statuses (google.rpc, see AIP-193), and back again for the client."""

from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from service.errors import TubeletError

DOMAIN = "tubelet"

# A client that is told more than 8 KiB sees nothing of it. The message is there three times, once in
# percent-encoding, which takes three bytes for one, and all but that in base64.
_MAX_MESSAGE_BYTES = 1000
_MAX_VALUE_BYTES = 200
_CUT = "…"


def to_status(error: TubeletError) -> grpc.Status:
    """ErrorInfo always; BadRequest where a field is at fault; RetryInfo where trying again helps.

    Of a long message or value there is the beginning.
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
    encoded = text.encode()
    if len(encoded) <= max_bytes:
        return text
    return encoded[: max_bytes - len(_CUT.encode())].decode(errors="ignore") + _CUT


class ServerError(Exception):
    """What the server answered instead of a classification.

    ``reason`` is stable (service.errors); empty when the error did not come from tubelet itself, as
    when no server is there. ``retry_after_s`` is set where trying again then may help.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        metadata: dict[str, str],
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code} {reason}: {message}" if reason else f"{code}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = metadata
        self.retry_after_s = retry_after_s


def from_rpc_error(error: grpc.RpcError) -> ServerError:
    """Read the details that ``to_status`` wrote."""
    # Both kinds of channel raise errors that are calls as well, which grpc's own types do not say.
    call = cast(grpc.Call, error)
    reason, metadata, retry_after_s = "", {}, None
    status = rpc_status.from_call(call)
    for detail in status.details if status else ():
        info, retry = ErrorInfo(), RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return ServerError(call.code().name, reason, call.details() or "", metadata, retry_after_s)
