"""``tubelet batch`` from a bucket into a bucket, of a real server with the interface of S3."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from s3fs import S3FileSystem
from typer.testing import CliRunner

from tests.support.batches import committed_rows
from tests.support.object_stores import expiring_store, s3_server
from tests.support.sample_clip import panning_clip
from tubelet.service.cli.app import app

NAMES = ("a clip.mp4", "deep/50 % + ü.mkv", "notes.mp4")


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3FileSystem]:
    """A bucket with two videos, a file that is none, and a text."""
    with s3_server("corpus") as options, pytest.MonkeyPatch.context() as patch:
        overridden = {"use_listings_cache": True}  # lists would be old when a run is resumed
        patch.setenv("TUBELET_FETCH__OPTIONS", json.dumps({"s3": options | overridden}))
        files = S3FileSystem(**options, skip_instance_cache=True, use_listings_cache=False)
        clip = panning_clip(2.0)
        for name, content in zip((*NAMES, "list.txt"), (clip, clip, b"no video", b"text"), strict=True):
            files.pipe_file(f"corpus/videos/{name}", content)
        yield files


def batch(*arguments: str, status: int = 0) -> dict[str, Any]:
    """Run the command with ``--json``; return what it printed last."""
    result = CliRunner().invoke(app, ["batch", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return json.loads(result.stdout.splitlines()[-1])


def rows(files: S3FileSystem, dest: str) -> list[dict[str, Any]]:
    """Return the rows of the table videos."""
    parts: list[Any] = [files.cat_file(name) for name in files.find(f"{dest}/videos")]
    return [row for part in parts for row in pyarrow.parquet.read_table(BytesIO(part)).to_pylist()]


def test_a_prefix_becomes_rows_in_a_bucket_once(bucket: S3FileSystem) -> None:
    command = ("s3://corpus/videos", "--out", "s3://corpus/rows", "--resume")
    first = batch(*command)
    assert (first["classified"], first["failures"]) == (2, {"NOT_A_VIDEO": 1})
    found = {row["uri"]: row for row in rows(bucket, "corpus/rows")}
    clip = found["s3://corpus/videos/a%20clip.mp4"]
    assert clip["labels"][0] == "pan_right"
    assert clip["etag"] == bucket.info("corpus/videos/a clip.mp4")["ETag"]
    assert set(found) == {
        "s3://corpus/videos/a%20clip.mp4",
        "s3://corpus/videos/deep/50%20%25%20+%20%C3%BC.mkv",
        "s3://corpus/videos/notes.mp4",
    }
    bucket.pipe_file("corpus/videos/notes.mp4", panning_clip(3.0))
    second = batch(*command)
    assert (second["videos"], second["classified"]) == (1, 1)
    listed = CliRunner().invoke(app, ["batch", "--list", "s3://corpus/rows"]).stdout.splitlines()
    assert listed[1].split()[1:4] == ["shard-00000-of-00001", "3", "1"]


def test_a_manifest_in_a_bucket_names_videos_beside_it(
    bucket: S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"uri": "a clip.mp4", "id": "good"}
    lines = [
        good,
        {"uri": "s3://corpus/videos/a clip.mp4", "id": "old", "etag": '"other"'},
        {"uri": "s3://elsewhere/a.mp4", "id": "forbidden"},
        {"uri": "s3://corpus/videos/nothing.mp4", "id": "missing"},
    ]
    bucket.pipe_file("corpus/videos/list.jsonl", "\n".join(map(json.dumps, lines)).encode())
    command = ("s3://corpus/videos/list.jsonl", "--out", "s3://corpus/rows-of-list")
    error = batch(*command, status=2)["error"]
    assert "fetch.allow covers none of the URIs, such as s3://corpus/videos/a%20clip.mp4" in error["message"]
    monkeypatch.setenv("TUBELET_FETCH__ALLOW", '["s3://corpus/"]')
    said = batch(*command)
    assert said["failures"] == {"URI_CHANGED": 1, "URI_NOT_ALLOWED": 1, "URI_NOT_FOUND": 1}
    found = {row["id"]: row["reason"] for row in rows(bucket, "corpus/rows-of-list")}
    assert found == {
        "good": "",
        "old": "URI_CHANGED",
        "forbidden": "URI_NOT_ALLOWED",
        "missing": "URI_NOT_FOUND",
    }


def test_prefixes_without_videos_or_buckets_are_refused(bucket: S3FileSystem) -> None:
    bucket.pipe_file("corpus/texts/a.txt", b"text")
    for source, says in {
        "s3://corpus/texts": "no object under s3://corpus/texts ends with one of",
        "s3://corpus/nothing": "there is nothing at s3://corpus/nothing",
        "s3://elsewhere/": "there is nothing at s3://elsewhere/",
    }.items():
        assert says in batch(source, "--out", "s3://corpus/never", status=2)["error"]["message"]
    assert not bucket.exists("corpus/never")


def test_credentials_that_expire_in_the_middle_leave_no_rows_of_the_rest(
    bucket: S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = panning_clip(1.0, (64, 48))
    for number in range(26):
        bucket.pipe_file(f"corpus/many/{number:02}.mp4", clip)
    own: dict[str, Any] = bucket.storage_options
    command = ("s3://corpus/many", "--out", str(tmp_path / "rows"), "--jobs", "2", "--resume")
    with expiring_store(own["endpoint_url"], 4) as store:
        address = f"http://127.0.0.1:{store.server_port}"
        options = {"key": own["key"], "secret": own["secret"], "endpoint_url": address}
        monkeypatch.setenv("TUBELET_FETCH__OPTIONS", json.dumps({"s3": options}))
        error = batch(*command, status=1)["error"]
        assert error["reason"] == "SOURCE_OUTAGE"
        assert "check network and credentials, then continue with --resume" in error["message"]
        before = committed_rows(tmp_path / "rows", "videos")
        assert 0 < len(before) <= 4
        assert {row["code"] for row in before} == {"OK"}
        store.left = 1000  # new credentials
        said = batch(*command)
    assert said["classified"] == 26 - len(before)
    found = committed_rows(tmp_path / "rows", "videos")
    assert sorted(row["uri"] for row in found) == [f"s3://corpus/many/{n:02}.mp4" for n in range(26)]
    assert {row["code"] for row in found} == {"OK"}
