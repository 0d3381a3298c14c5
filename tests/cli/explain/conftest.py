"""What tests of ``tubelet explain`` share."""

from pathlib import Path

import pytest

from tests.support.sample_clip import panning_clip


@pytest.fixture(scope="module")
def clip() -> bytes:
    """A clip of two seconds, encoded once."""
    return panning_clip(2.0)


@pytest.fixture
def video(tmp_path: Path, clip: bytes) -> Path:
    path = tmp_path / "good.mp4"
    path.write_bytes(clip)
    return path
