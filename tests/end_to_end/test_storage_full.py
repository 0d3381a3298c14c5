"""A real full file system: the client gets a retry delay, and other videos are answered."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running_server import Served, serving
from tests.support.sample_clip import panning_clip
from tubelet.service.client import Client, ServerError


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A server whose uploads go to a file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def cramped(disk: Path) -> Iterator[Served]:
    with serving(upload={"directory": str(disk)}) as served:
        yield served


def test_upload_to_a_full_disk_gets_a_retry_delay(cramped: Served) -> None:
    failed = {"name": "tubelet_failed_requests_total", "reason": "STORAGE_FULL"}
    small, large = panning_clip(1.0), bytes(4_000_000)
    with Client(cramped.target, retries=False) as client:
        with pytest.raises(ServerError) as caught:
            client.classify(large)
        error = caught.value
        assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
        assert error.retry_after_s == 5.0
        assert error.message == "the server has no room to store the video; try again later"
        assert cramped.metric(**failed) == 1
        assert client.classify(small).labels[0].name == "pan_right"  # its room was given back
