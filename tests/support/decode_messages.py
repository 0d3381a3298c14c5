"""Examples of each message between server and decode worker, and messages that are none."""

import struct

from tests.support.preprocessing import preprocessing
from tubelet.service.decode.protocol import (
    BytesAvailable,
    BytesNeeded,
    Decode,
    End,
    Failed,
    Heartbeat,
    OutOfMemory,
    Probe,
    Probed,
    Ready,
    Rejected,
    Release,
    Stop,
    Stopped,
    Unit,
)
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import DecodeSummary, Protection, Thumbnail, VideoMetadata

LENGTH = struct.Struct("!I")

METADATA = VideoMetadata("mov", "h264", 2, 2, 29.97, 1, 1, 1, ("odd",))
RESPONSES = [
    Ready((Protection.RLIMITS, Protection.SECCOMP)),
    Heartbeat(),
    BytesNeeded(0, 5),
    Probed(METADATA, knows_key_frames=True),
    Rejected("CORRUPT_VIDEO", "broken", None, None),
    Rejected("VIDEO_TOO_LARGE", "too long", 5, 7.5),
    Unit(0, 1, 2),
    End(DecodeSummary(5, 1, ("odd",), METADATA, 3, (Thumbnail(5, 2, 1, b"\xff\xd8\x00"),))),
    Stopped(),
    OutOfMemory("no memory"),
    Failed("a bug"),
]
_GRID = SamplingGrid(0, 4, 2, 2, 1, 1, one_segment=True, view_ns=1, crop="end", frame_offset_ns=0)
REQUESTS = [
    Probe(True, None, False),
    Decode(1, 2, Plan((_GRID,), is_unbounded=True), preprocessing(256, 256, "stretch"), False, 60),
    Release(1, 2),
    BytesAvailable(0, 5, 9),
    Stop(),
]


def frame(body: bytes) -> bytes:
    """Return a message of any ``body``, as it goes over the socket."""
    return LENGTH.pack(len(body)) + body
