"""The text that describes a video."""

from dataclasses import replace

import pytest

from tubelet.service.cli.output import metadata_text
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
