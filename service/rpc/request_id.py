"""The request id: under it a client, a proxy and the log speak of one call."""

import re
import uuid
from urllib.parse import quote

from tubelet.service.rpc.request_stream import Context
from tubelet.service.wire.status import REQUEST_ID

_MAX_LENGTH = 128
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))  # ASCII that needs no escape
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


def find_request_id(context: Context) -> str:
    """Return the client's ``x-request-id``, the trace id of its ``traceparent`` (W3C), or else a new id."""
    metadata = {"traceparent": "", REQUEST_ID: ""}
    for key, value in context.invocation_metadata() or ():
        if metadata.get(str(key)) == "":  # of several values, the first
            metadata[str(key)] = str(value)
    if given := metadata[REQUEST_ID]:
        return clean(given)
    trace = _TRACEPARENT.fullmatch(metadata["traceparent"])
    return trace[1] if trace else uuid.uuid4().hex


def clean(given: str) -> str:
    """Escape what is not visible ASCII in a client's id, as in URIs, and cut it."""
    return quote(given[:_MAX_LENGTH], safe=_VISIBLE, errors="replace")[:_MAX_LENGTH]
