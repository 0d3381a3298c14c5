"""The two tables that a batch writes, ``videos`` and ``segments``: their columns, types and meaning.

D numbers in an embedding.
"""

from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 1
"""Raised when a column changes its name, type or meaning; a new column at the end does not raise it."""

Kind = Literal["text", "integer", "number", "time", "texts", "numbers", "ranges", "vector"]
"""The types of values: ``texts`` and ``numbers`` are lists, ``ranges`` a list of [start, end] in seconds,
``time`` a moment in UTC, ``vector`` a list of D float32."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    kind: Kind
    text: str


VIDEOS = (
    Column("id", "text", "Id of the video: that of the manifest, or a hash of URI, version and ranges."),
    Column("plan", "text", "What was asked for: a hash of the model's fingerprint and all options."),
    Column("uri", "text", "URI of the video; of a file on the machine, `file:///PATH`."),
    Column(
        "etag", "text", "Version of the file: ETag or generation; of a file, its size and time of change."
    ),
    Column("ranges", "ranges", "Time ranges that were asked for, in seconds; empty: the whole video."),
    Column("size_bytes", "integer", "Size of the file."),
    Column("container", "text", "Container format, as FFmpeg names it."),
    Column("codec", "text", "Codec of the video stream."),
    Column("width", "integer", "Width in pixels, after rotation."),
    Column("height", "integer", "Height in pixels, after rotation."),
    Column("fps", "number", "Frames a second."),
    Column("frames", "integer", "Number of frames."),
    Column("duration_s", "number", "Duration in seconds."),
    Column("model", "text", "Name of the model."),
    Column("version", "text", "Version of the model."),
    Column("fingerprint", "text", "Fingerprint of the model."),
    Column("labels", "texts", "Labels of the whole video, best first."),
    Column("scores", "numbers", "Their scores, 0 to 1."),
    Column("warnings", "texts", "What was damaged or approximate."),
    Column("code", "text", "`OK`, or the gRPC code of the error."),
    Column("reason", "text", "Reason of the error; empty where `code` is `OK`."),
    Column("message", "text", "The error in a sentence."),
    Column("read_bytes", "integer", "Bytes that were read of the file at its URI."),
    Column("device_s", "number", "Seconds of devices that the video took."),
    Column("wall_s", "number", "Seconds from its start to its end."),
    Column("attempts", "integer", "Attempts in the run that wrote the row."),
    Column("finished_at", "time", "When it ended."),
)
"""One row for each video, whether it was classified or failed."""

SEGMENTS = (
    Column("id", "text", "Id of the video."),
    Column("plan", "text", "As in `videos`."),
    Column("start_s", "number", "Start of the segment in seconds."),
    Column("end_s", "number", "Its end."),
    Column("labels", "texts", "Labels of the segment, best first."),
    Column("scores", "numbers", "Their scores, 0 to 1."),
)
"""One row for each segment of the videos that were classified, in the order of time."""

EMBEDDING = Column("embedding", "vector", "With `--embeddings`: the mean of the vectors of its windows.")
"""The last column of ``segments``, if it was asked for."""
