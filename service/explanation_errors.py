"""The errors of explanations that a client can get, with their gRPC codes and stable reasons.

TubeletError
├── CopyNotLoaded           FAILED_PRECONDITION  the model cannot be loaded a second time
└── ClientError
    ├── NotExplainable      INVALID_ARGUMENT     the model does not answer the question; a reason each
    ├── NothingToExplain    INVALID_ARGUMENT     no segment has a label whose score reaches the threshold
    └── VideoTooLarge
        ├── MapTooLarge     FAILED_PRECONDITION  the map of a segment has more bytes than a message may hold
        └── SegmentTooLong  FAILED_PRECONDITION  the frames of a segment take more memory than is allowed
"""

import grpc

from tubelet.models.errors import ExplainReason
from tubelet.service.errors import ClientError, TubeletError, VideoTooLarge


class CopyNotLoaded(TubeletError):
    """The server cannot load its model a second time, which explanations need; its log says why."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "BROKEN_MODEL"
    before_work = True


class NotExplainable(ClientError):
    """The model does not answer the question; ``reason`` is that of ``tubelet.models``."""

    before_work = True

    def __init__(self, reason: ExplainReason, message: str, *, field: str = "", **metadata: object) -> None:
        super().__init__(message, field=field, **metadata)
        self.reason = reason


class NothingToExplain(ClientError):
    """No segment of the video has a label to explain, since no score reaches the threshold."""

    reason = "NO_SEGMENT"


class MapTooLarge(VideoTooLarge):
    """The map of a segment has more bytes than one message may hold."""

    reason = "MAP_TOO_LARGE"


class SegmentTooLong(VideoTooLarge):
    """The frames of a segment, which are kept until it is explained, take more memory than is allowed."""

    reason = "SEGMENT_TOO_LONG"
