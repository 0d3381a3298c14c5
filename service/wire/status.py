"""Errors as rich gRPC statuses (google.rpc, see AIP-193), and back again for the client."""

import os
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from tubelet.service.errors import TubeletError
from tubelet.service.types.target import DEFAULT_PORT

DOMAIN = "tubelet"
SERVER_UNREACHABLE = "SERVER_UNREACHABLE"
"""The reason of a ServerError that the client makes: no tubelet server answers there."""
CONNECTION_LOST = "CONNECTION_LOST"
"""The reason of a ServerError that the client makes: a server answered, but not to the end of the call."""

# A client that is told more than 8 KiB sees nothing of it. The message is there three times, once in
# percent-encoding, which takes three bytes for one, and all but that in base64.
_MAX_MESSAGE_BYTES = 1000
_MAX_VALUE_BYTES = 200
_CUT = "…"

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # in the order in which gRPC takes them

# A frame's type is the fourth byte of what came: of "HTTP/1.1", and of "<!DOCTYPE" as HTTP/0.9 has it.
_SIGNS_OF_HTTP = ("http1.x server", f"got frame type {ord('P')})", f"got frame type {ord('O')})")


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

    ``reason`` is stable: the server's own, SERVER_UNREACHABLE, CONNECTION_LOST, or empty
    where gRPC itself gave up, as it does after a timeout. ``retry_after_s`` is set where trying again then
    may help.
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


def from_rpc_error(error: grpc.RpcError, target: str) -> ServerError:
    """Read the details that ``to_status`` wrote; without them, say what is wrong with the connection."""
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
    message = call.details() or ""
    if not reason and call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED):
        reason, message = _connection_failure(call.code(), message, target)
    return ServerError(call.code().name, reason, message, metadata, retry_after_s)


def _proxy_hint() -> str:
    """Name the variable by which gRPC connects through a proxy, to servers on this machine too."""
    proxy = next((name for name in _PROXIES if os.environ.get(name)), None)
    return f"{proxy} is set: no_proxy must name servers that are not behind that proxy" if proxy else ""


def _connection_failure(code: grpc.StatusCode, details: str, target: str) -> tuple[str, str]:
    """Return reason and sentence for a call that no tubelet server answered, by gRPC's ``details``."""
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return SERVER_UNREACHABLE, f"what answers at {target} is no tubelet server of this version: {details}"
    if any(sign in details for sign in _SIGNS_OF_HTTP):
        return SERVER_UNREACHABLE, (
            f"{target} answers HTTP, not gRPC: that looks like the metrics port; "
            f"the gRPC port is {DEFAULT_PORT} by default"
        )
    if "Failed parsing HTTP/2" in details:
        return SERVER_UNREACHABLE, f"what answers at {target} is no tubelet server: it does not speak gRPC"
    if "failed to connect" in details:
        hint = _proxy_hint() or "is `tubelet serve` running?"
        return SERVER_UNREACHABLE, f"no tubelet server answers at {target}; {hint}"
    if "resolving" in details or "resolution" in details:
        host = target.rpartition(":")[0]
        return SERVER_UNREACHABLE, f"the name {host} of the server {target} cannot be resolved"
    return CONNECTION_LOST, f"the connection to {target} was lost: {details}"
