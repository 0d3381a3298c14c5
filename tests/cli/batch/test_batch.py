"""``tubelet batch``: rows as ``classify`` answers, resumed, refused, interrupted."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.batches import committed_rows, doubled, named_parts, part_files
from tests.support.cli_process import TUBELET
from tests.support.sample_clip import panning_clip
from tests.support.terminal import CTRL_C, terminal
from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.destination.layout import Layout, prepare
from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.part_files import part_file
from tubelet.service.batch.destination.store import FolderStore
from tubelet.service.batch.plan import make_plan
from tubelet.service.batch.rows import BatchFailure, Cost, failure_rows
from tubelet.service.batch.source.items import Shard, file_item
from tubelet.service.cli.app import app
from tubelet.service.config.config import load_config
from tubelet.service.types.request import Options

_CLIPS = 3
_KILLS = 6  # after which a run goes on to its end


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips, each of its own length, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(_CLIPS):
        (folder / f"{number}.mp4").write_bytes(panning_clip(2.0 + number))
    (folder / "notes.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def done(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of all of ``videos``."""
    dest = tmp_path_factory.mktemp("done") / "rows"
    said = batch(str(videos), "--out", str(dest), "--json")
    assert said["classified"] == said["committed"] - 1 == _CLIPS
    assert said["failures"] == {"NOT_A_VIDEO": 1}
    return dest


@pytest.fixture(scope="module")
def answered(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """What ``classify`` answers about the clips of ``videos``, as objects and as a table."""
    table = tmp_path_factory.mktemp("classified") / "segments.csv"
    names = [str(videos / f"{number}.mp4") for number in range(_CLIPS)]
    result = CliRunner().invoke(app, ["classify", *names, "--json", "--top-k", "5", "--csv", str(table)])
    assert result.exit_code == 0, result.output
    return list(map(json.loads, result.stdout.splitlines())), table


def batch(*arguments: str, status: int = 0) -> dict[str, Any]:
    """Run the command with ``--json``; return what it printed last."""
    result = CliRunner().invoke(app, ["batch", *arguments], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return json.loads(result.stdout.splitlines()[-1])


def refusal(*arguments: str) -> dict[str, str]:
    """Run the command, which refuses; return its error."""
    return batch(*arguments, "--json", status=2)["error"]


def test_rows_are_what_classify_answers(done: Path, answered: tuple[list[dict[str, Any]], Path]) -> None:
    rows = {row["uri"].rpartition("/")[2]: row for row in committed_rows(done, "videos")}
    segments = committed_rows(done, "segments")
    answers, _ = answered
    assert len(answers) == _CLIPS
    for answer in answers:
        row = rows[Path(answer["video"]).name]
        assert row["labels"] == [label["label"] for label in answer["labels"]]
        assert row["scores"] == pytest.approx([each["score"] for each in answer["labels"]], abs=0.02)
        assert (row["model"], row["version"], row["fingerprint"]) == (
            answer["model"],
            answer["version"],
            answer["fingerprint"],
        )
        assert row["duration_s"] == answer["duration_s"]
        own = [each for each in segments if each["id"] == row["id"]]
        assert [(each["start_s"], each["end_s"]) for each in own] == [
            (each["start_s"], each["end_s"]) for each in answer["segments"]
        ]
        assert row["read_bytes"] == row["size_bytes"] == os.path.getsize(answer["video"])
        assert row["device_s"] > 0
    assert "<td>the file is not a video, or its header is damaged</td>" in (done / "report.html").read_text()
    failed = rows["notes.mp4"]
    assert (failed["code"], failed["reason"]) == ("INVALID_ARGUMENT", "NOT_A_VIDEO")
    assert not [each for each in segments if each["id"] == failed["id"]]


def test_a_destination_is_continued_only_as_it_was_begun(videos: Path, done: Path) -> None:
    again = (str(videos), "--out", str(done))
    assert "has rows of 4 videos already; continue it with --resume" in refusal(*again)["message"]
    same = (*again, "--resume")
    said = CliRunner().invoke(app, ["batch", *same]).stderr.splitlines()
    assert said == [
        f"resumed: 3 of 4 videos are classified in {done}; 1 failed before (--retry-failed asks again)",
        f"nothing to do: every video has its row in {done}",
    ]
    for flags, says in {
        ("--top-k", "2"): "has rows of other options: top_k 5, not 2",
        ("--window", "2"): "has rows of other options: windowing",
        ("--model", "camera-motion-frame"): "has rows of camera-motion:1.2.0, not camera-motion-frame:",
        ("--format", "csv"): "has parts in parquet; use --format parquet",
        ("--shard", "0/2"): "is written in 1 shards, not 2",
    }.items():
        error = refusal(*same, *flags)
        assert error["reason"] == "DESTINATION_MISMATCH"
        assert says in error["message"]


def test_a_destination_that_is_no_batch_is_refused(videos: Path, tmp_path: Path) -> None:
    assert "has files, and none of a batch" in refusal(str(videos), "--out", str(videos))["message"]
    (tmp_path / "_tubelet").mkdir()
    (tmp_path / "_tubelet" / "batch.json").write_text('{"schema": 0, "shards": 1, "format": "parquet"}')
    assert "has rows of schema 0, and this tubelet writes 1" in refusal("--list", str(tmp_path))["message"]
    (tmp_path / "_tubelet" / "batch.json").write_text("torn")
    assert "is no file of a batch" in refusal("--list", str(tmp_path))["message"]
    assert "has no rows of a batch" in refusal("--list", str(tmp_path / "nothing"))["message"]


def test_the_list_names_what_is_committed(done: Path) -> None:
    listed = CliRunner().invoke(app, ["batch", "--list", str(done), "--json"]).stdout.splitlines()
    parts = [name for line in listed for names in json.loads(line)["parts"].values() for name in names]
    assert set(parts) == part_files(done)
    shown = CliRunner().invoke(app, ["batch", "--list", str(done)]).stdout.splitlines()
    assert shown[1].split()[1:4] == ["shard-00000-of-00001", "3", "1"]
    assert shown[2] == "failed: NOT_A_VIDEO 1"


@pytest.mark.parametrize("part_format", ["parquet", "csv"])
def test_the_segments_are_exported_as_classify_writes_them(
    videos: Path,
    done: Path,
    answered: tuple[list[dict[str, Any]], Path],
    tmp_path: Path,
    part_format: str,
) -> None:
    dest = done
    if part_format != "parquet":
        dest = tmp_path / "rows"
        batch(str(videos / "0.mp4"), "--out", str(dest), "--format", part_format, "--embeddings", "--json")
    ours, (_, theirs) = tmp_path / "ours.csv", answered
    exported = CliRunner().invoke(app, ["batch", "--list", str(dest), "--export", str(ours)])
    assert exported.stdout.startswith(f"{_CLIPS if dest is done else 1} videos are in ")
    columns, *lines = list(csv.reader(ours.open(newline="")))
    wanted, *others = list(csv.reader(theirs.open(newline="")))
    assert columns == wanted
    own, others = ([line for line in table if line[0].endswith("/0.mp4")] for table in (lines, others))
    assert [line[1:5] for line in own] == [line[1:5] for line in others]
    assert [float(line[5]) for line in own] == pytest.approx([float(line[5]) for line in others], abs=0.02)


def test_an_export_in_another_format_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["batch", "--list", str(tmp_path), "--export", "rows.parquet"])
    assert done.exit_code == 2
    assert "--export writes a CSV; found rows.parquet" in done.stderr


def test_another_model_is_added_and_failures_are_asked_again(videos: Path, tmp_path: Path) -> None:
    dest = tmp_path / "rows"
    command = (f"{videos}/[0n]*.mp4", "--out", str(dest), "--json", "--resume")
    first = batch(*command, "--embeddings")
    assert (first["classified"], first["failed"]) == (1, 1)
    vectors = [row["embedding"] for row in committed_rows(dest, "segments")]
    assert {len(vector) for vector in vectors} == {160}
    second = batch(*command, "--add-model", "--whole-video")
    assert (second["classified"], second["failed"]) == (1, 1)
    assert len({row["plan"] for row in committed_rows(dest, "videos")}) == 2
    before = part_files(dest)
    again = batch(*command, "--embeddings", "--retry-failed")
    assert (again["videos"], again["failed"]) == (1, 1)
    assert len(committed_rows(dest, "videos")) == 4
    assert part_files(dest) == named_parts(dest) != before


def test_only_failures_that_say_so_are_asked_again_by_themselves(videos: Path, tmp_path: Path) -> None:
    dest = tmp_path / "rows"
    plan = make_plan(Options(), load_config(), embeddings=False)
    store = FolderStore(dest)
    prepare(store, plan, Layout(1, "parquet"), may_add=False)
    part, owner = part_file("parquet"), Owner.this_process()
    commits = ShardCommits(store, plan.folder, Shard().name, owner, part, ".parquet")
    commits.read()
    commits.take()
    failures = {
        "0.mp4": BatchFailure("RESOURCE_EXHAUSTED", "STORAGE_FULL", "full", may_retry=True),
        "1.mp4": BatchFailure("INVALID_ARGUMENT", "CORRUPT_VIDEO", "damaged"),
    }
    commits.commit(
        [
            failure_rows(file_item(str(videos / name)), plan, failure, Cost())
            for name, failure in failures.items()
        ]
    )
    assert batch(f"{videos}/[01].mp4", "--out", str(dest), "--resume", "--json")["classified"] == 1
    found = {row["uri"].rpartition("/")[2]: row["reason"] for row in committed_rows(dest, "videos")}
    assert found == {"0.mp4": "", "1.mp4": "CORRUPT_VIDEO"}


def test_a_limit_takes_some_of_a_shuffled_order(videos: Path, tmp_path: Path) -> None:
    command = (str(videos), "--out", str(tmp_path / "rows"), "--shuffle", "--seed", "3", "--json")
    assert batch(*command, "--limit", "2")["videos"] == len(committed_rows(tmp_path / "rows", "videos")) == 2


def test_shards_together_have_every_video_once(videos: Path, tmp_path: Path) -> None:
    dest = tmp_path / "rows"
    counts = [
        batch(str(videos), "--out", str(dest), "--shard", f"{index}/2", "--json")["videos"]
        for index in range(2)
    ]
    assert sum(counts) == len(committed_rows(dest, "videos")) == _CLIPS + 1
    assert not doubled(committed_rows(dest, "videos"))


@pytest.mark.parametrize(
    ("how", "status"), [("sigterm", 143), pytest.param("ctrl-c", 130, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_commits_what_is_done(videos: Path, tmp_path: Path, how: str, status: int) -> None:
    manifest = tmp_path / "many.jsonl"
    clips = [{"uri": str(videos / f"{number % _CLIPS}.mp4"), "id": f"v{number}"} for number in range(2000)]
    manifest.write_text("\n".join(map(json.dumps, clips)))
    dest = tmp_path / "rows"
    with terminal("batch", str(manifest), "--out", str(dest), "--jobs", "4", columns=200) as shown:
        shown.wait_for("videos/s")
        if how == "ctrl-c":
            shown.type(CTRL_C)
        else:
            shown.process.send_signal(signal.SIGTERM)
        assert shown.wait() == status
    *_, summary = shown.lines
    rows = committed_rows(dest, "videos")
    assert summary.startswith(f"interrupted: {len(rows)} classified, in 0:")
    assert f"; {len(rows)} are committed in {dest}; the same command with --resume continues" in summary
    assert 0 < len(rows) < len(clips)
    assert not doubled(rows)
    assert not list((dest / "_tubelet" / "locks").iterdir())
    assert part_files(dest) == named_parts(dest)


@pytest.mark.parametrize("options", ["size=24k", "size=1m,ro"])
def test_a_destination_that_cannot_be_written_ends_the_run_with_a_sentence(
    videos: Path, tmp_path: Path, options: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        error = batch(f"{videos}/0.mp4", "--out", str(disk / "rows"), "--json", status=1)["error"]
        full = os.listdir(disk)
        assert error["reason"] == "SYSTEM_ERROR"
        assert error["message"].startswith(f"cannot write {disk}/rows/")
        assert error["message"].endswith(
            "Read-only file system" if "ro" in options else "No space left on device"
        )
        assert not any(name.endswith(".part") for name in full)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_again_and_again_every_video_has_one_row(videos: Path, tmp_path: Path) -> None:
    manifest, dest = tmp_path / "many.jsonl", tmp_path / "rows"
    clips = [{"uri": str(videos / f"{number % _CLIPS}.mp4"), "id": f"v{number}"} for number in range(400)]
    manifest.write_text("\n".join(map(json.dumps, [*clips, {"uri": str(videos / "notes.mp4"), "id": "bad"}])))
    command = [TUBELET, "batch", str(manifest), "--out", str(dest), "--resume", "--commit-every", "1"]
    kills = 0
    while True:
        parts = named_parts if kills % 2 else part_files  # after a commit, or before it
        before = parts(dest)
        run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while kills < _KILLS and run.poll() is None and parts(dest) <= before:
            time.sleep(0.02)
        if kills == _KILLS or run.poll() is not None:
            assert run.wait() == 0
            break
        run.kill()
        run.wait()
        kills += 1
        assert not doubled(committed_rows(dest, "videos"))
    rows = committed_rows(dest, "videos")
    assert kills >= 3
    assert sorted(row["id"] for row in rows) == sorted(["bad", *(clip["id"] for clip in clips)])
    assert part_files(dest) == named_parts(dest)
