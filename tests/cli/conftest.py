"""What tests of the command share."""

from pathlib import Path

import pytest

from tests.support.sample_clip import panning_clip


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "good.mp4"
    path.write_bytes(panning_clip(2.0))
    return path
