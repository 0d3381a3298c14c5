"""Times in protobuf messages."""

from collections.abc import Iterable

import numpy as np
from google.protobuf.duration_pb2 import Duration

from tubelet.service.types.video import NS_PER_S
from tubelet.v1 import classification_pb2 as pb


def to_duration(ns: int) -> Duration:
    """Convert nanoseconds to a protobuf Duration."""
    seconds, nanos = divmod(ns, NS_PER_S)
    return Duration(seconds=seconds, nanos=nanos)


def from_duration(duration: Duration) -> int:
    """Convert a protobuf Duration to nanoseconds."""
    return duration.seconds * NS_PER_S + duration.nanos


def to_time_range(start_ns: int, end_ns: int) -> pb.TimeRange:
    """Convert the time range [start_ns, end_ns) to a message."""
    return pb.TimeRange(start=to_duration(start_ns), end=to_duration(end_ns))


def to_ns_array(seconds: Iterable[float]) -> np.ndarray:
    """Round times (N,) in seconds to whole nanoseconds."""
    return np.rint(np.array([*seconds], np.float64) * NS_PER_S).astype(np.int64)
