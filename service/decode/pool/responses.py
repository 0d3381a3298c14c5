"""Checked conversion of a worker's messages into our values: the worker may have been taken over.

Each function raises LookupError, TypeError, ValueError, AttributeError or OverflowError if its message does
not have the expected form.
"""

from typing import Any

from tubelet.service.errors import (
    ClientError,
    CorruptVideo,
    NotAVideo,
    NoVideoStream,
    UnsupportedVideo,
    VideoTooLarge,
)
from tubelet.service.types.video import DecodeSummary, Protection, VideoMetadata

_MAX_TEXT = 500  # characters of a worker's text that we pass on or log
_MAX_WARNINGS = 20
_REJECTIONS: dict[str, type[ClientError]] = {
    error.reason: error for error in (NotAVideo, UnsupportedVideo, NoVideoStream, CorruptVideo, VideoTooLarge)
}


def parse_metadata(message: dict[str, Any]) -> VideoMetadata:
    """Convert the fields that describe a video."""
    return VideoMetadata(
        container=limited_text(message["container"]),
        codec=limited_text(message["codec"]),
        width=int(message["width"]),
        height=int(message["height"]),
        fps=float(message["fps"]),
        frames=int(message["frames"]),
        duration_ns=int(message["duration_ns"]),
        size_bytes=int(message["size_bytes"]),
        warnings=_parse_warnings(message),
    )


def parse_summary(message: dict[str, Any]) -> DecodeSummary:
    """Convert the message at the end of a decode run."""
    return DecodeSummary(
        int(message["end_ns"]),
        int(message["frames_decoded"]),
        _parse_warnings(message),
        parse_metadata(message["metadata"]),
        int(message["max_frame_offset_ns"]),
    )


def parse_protections(message: dict[str, Any]) -> frozenset[Protection]:
    """Convert the names of the sandbox layers that a worker has entered."""
    return frozenset(Protection(name) for name in message["protections"])


def parse_rejection(message: dict[str, Any]) -> ClientError:
    """Convert a rejected video into the client's error; of its metadata, only limit and value are kept."""
    known = {"limit", "value"} & message["metadata"].keys()
    metadata = {key: limited_text(message["metadata"][key]) for key in sorted(known)}
    return _REJECTIONS[message["reason"]](limited_text(message["message"]), **metadata)


def limited_text(value: object) -> str:
    """Return ``value`` as text, cut after ``_MAX_TEXT`` characters."""
    return str(value)[:_MAX_TEXT]


def _parse_warnings(message: dict[str, Any]) -> tuple[str, ...]:
    """Convert the first ``_MAX_WARNINGS`` warnings of a message."""
    return tuple(limited_text(warning) for warning in message["warnings"][:_MAX_WARNINGS])
