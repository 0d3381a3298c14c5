"""The text that describes a video or its failure, and the object of a failure."""

from dataclasses import replace

import pytest

from tubelet.service.cli.output import answer_json, failure_text, metadata_text
from tubelet.service.cli.runs.runner import Failure
from tubelet.service.types.video import VideoMetadata

METADATA = VideoMetadata("matroska", "h264", 320, 240, 25.0, 50, 2_000_000_000, 12345)


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        (METADATA, "0:00:02.0, 320x240, 25 fps, 50 frames, h264 in matroska"),
        (replace(METADATA, frames=0), "0:00:02.0, 320x240, 25 fps, h264 in matroska"),
        (replace(METADATA, frames=0, fps=0.0, duration_ns=0), "320x240, h264 in matroska"),
    ],
)
def test_metadata_text_leaves_out_unknown_values(metadata: VideoMetadata, text: str) -> None:
    assert metadata_text(metadata) == text


@pytest.mark.parametrize(
    ("failure", "text", "request_id"),
    [
        (
            Failure("NOT_FOUND", "UNKNOWN_MODEL", "no such model", "a-1"),
            "UNKNOWN_MODEL, request id a-1",
            "a-1",
        ),
        (Failure("INTERNAL", "INTERNAL", "ask for log entry a-1", "a-1"), "INTERNAL, INTERNAL", "a-1"),
        (Failure("INVALID_ARGUMENT", "FILE_NOT_READABLE", "no such file"), "FILE_NOT_READABLE", None),
    ],
)
def test_failures_name_the_request_id_of_a_server(
    failure: Failure, text: str, request_id: str | None
) -> None:
    """Under it the server's log has the call; a message that names it already is enough for people."""
    assert failure_text("a.mp4", failure).startswith(f"a.mp4: {failure.message} (")
    assert failure_text("a.mp4", failure).endswith(f"{text})")
    assert answer_json("a.mp4", failure)["error"].get("request_id") == request_id
