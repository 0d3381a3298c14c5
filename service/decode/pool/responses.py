"""Checked conversion of a worker's messages into values: the worker may have been taken over."""

from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from tubelet.service.decode.protocol import MAX_TEXT, ProtocolError, Rejected, Response
from tubelet.service.errors import (
    ClientError,
    CorruptVideo,
    NotAVideo,
    NoVideoStream,
    UnsupportedVideo,
    VideoTooLarge,
)

_MESSAGE = TypeAdapter[tuple[int, Response]](
    tuple[int, Annotated[Response, Field(discriminator="type")]],
    config=ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        str_max_length=MAX_TEXT,
        val_json_bytes="base64",
    ),
)
_REJECTIONS: dict[str, type[ClientError]] = {
    error.reason: error for error in (NotAVideo, UnsupportedVideo, NoVideoStream, CorruptVideo, VideoTooLarge)
}


def parse_response(body: bytes) -> tuple[int, Response]:
    """Parse a message of a worker into the number of its session and its content.

    Raises:
        ProtocolError: the message is not JSON, or not of one of the types of ``Response``.
    """
    try:
        return _MESSAGE.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProtocolError(f"invalid message{where and f', {where}'}: {first['msg']}") from None


def rejection_error(rejected: Rejected) -> ClientError:
    """Return the client's error for a rejected video, with the limit and the value found if there are any."""
    found = {"limit": rejected.limit, "value": rejected.value}
    metadata = {name: str(number)[:MAX_TEXT] for name, number in found.items() if number is not None}
    return _REJECTIONS[rejected.reason](rejected.message, **metadata)
