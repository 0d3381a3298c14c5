"""Videos at file: URIs over a real channel: read in place, and only within the allowed folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.running_server import Served, serving
from tests.support.sample_clip import encode
from tubelet.service.client import Client
from tubelet.service.wire.status import ServerError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(fetch={"allow": [f"file://{folder}/public"]}) as server:
        yield server


@pytest.fixture(scope="module")
def clip() -> bytes:
    chance = np.random.default_rng(0)
    return encode((chance.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(20)), fps=10)


@pytest.fixture(scope="module")
def public(folder: Path, clip: bytes) -> Path:
    """The folder that file: URIs may read; its neighbour may not be read."""
    public = folder / "public"
    (public / "sub").mkdir(parents=True)
    (folder / "private").mkdir()
    (folder / "publicity").mkdir()
    for path in (public / "a b.mp4", folder / "private/b.mp4", folder / "publicity/c.mp4"):
        path.write_bytes(clip)
    (public / "inside.mp4").symlink_to("a b.mp4")
    (public / "outside.mp4").symlink_to("../private/b.mp4")
    (public / "sub/way").symlink_to("../../private")
    (public / "dangling.mp4").symlink_to("nothing.mp4")
    (public / "empty.mp4").touch()
    os.mkfifo(public / "pipe.mp4")
    return public


@pytest.mark.parametrize("name", ["a%20b.mp4", "inside.mp4"])
def test_local_file_is_read_in_place(client: Client, public: Path, clip: bytes, name: str) -> None:
    answer = client.classify(f"file://{public}/{name}")
    assert answer.metadata == client.classify(clip).metadata
    assert answer.fetched_bytes == 0


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("public/outside.mp4", "URI_NOT_ALLOWED"),
        ("public/sub/way/b.mp4", "URI_NOT_ALLOWED"),
        ("private/b.mp4", "URI_NOT_ALLOWED"),
        ("publicity/c.mp4", "URI_NOT_ALLOWED"),
        ("public/../private/b.mp4", "MALFORMED_OPTION"),
        ("public/%2e%2e/private/b.mp4", "MALFORMED_OPTION"),
        ("public/nothing.mp4", "URI_NOT_FOUND"),
        ("public/dangling.mp4", "URI_NOT_FOUND"),
        ("public/sub", "URI_NOT_FOUND"),
        ("public/pipe.mp4", "URI_NOT_FOUND"),
        ("public/empty.mp4", "EMPTY_UPLOAD"),
    ],
)
def test_files_outside_the_allowed_folders_are_refused(
    client: Client, folder: Path, public: Path, path: str, reason: str
) -> None:
    with pytest.raises(ServerError) as caught:
        client.classify(f"file://{folder}/{path}", timeout_s=60)
    assert caught.value.reason == reason
