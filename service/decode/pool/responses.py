"""A worker's answers -> our values, with nothing in them taken on trust.

Whatever does not fit raises LookupError, TypeError, ValueError, AttributeError or OverflowError.
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

_MAX_TEXT = 500  # characters of a sentence that a worker may make us pass on or log
_MAX_WARNINGS = 20
_REFUSALS: dict[str, type[ClientError]] = {
    error.reason: error for error in (NotAVideo, UnsupportedVideo, NoVideoStream, CorruptVideo, VideoTooLarge)
}


def video_metadata(said: dict[str, Any]) -> VideoMetadata:
    return VideoMetadata(
        container=text(said["container"]),
        codec=text(said["codec"]),
        width=int(said["width"]),
        height=int(said["height"]),
        fps=float(said["fps"]),
        frames=int(said["frames"]),
        duration_ns=int(said["duration_ns"]),
        size_bytes=int(said["size_bytes"]),
        warnings=_warnings(said),
    )


def decode_summary(said: dict[str, Any]) -> DecodeSummary:
    return DecodeSummary(
        int(said["end_ns"]),
        int(said["frames_decoded"]),
        _warnings(said),
        video_metadata(said["metadata"]),
        int(said["max_frame_offset_ns"]),
    )


def protections(said: dict[str, Any]) -> frozenset[Protection]:
    return frozenset(Protection(name) for name in said["protections"])


def refusal(said: dict[str, Any]) -> ClientError:
    """The error for the client; only a limit and the value found come along."""
    known = {"limit", "value"} & said["metadata"].keys()
    metadata = {key: text(said["metadata"][key]) for key in sorted(known)}
    return _REFUSALS[said["reason"]](text(said["message"]), **metadata)


def text(said: object) -> str:
    """Of any length -> of a bounded one."""
    return str(said)[:_MAX_TEXT]


def _warnings(said: dict[str, Any]) -> tuple[str, ...]:
    return tuple(text(warning) for warning in said["warnings"][:_MAX_WARNINGS])
