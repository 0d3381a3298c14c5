"""``tubelet classify --csv --srt --vtt``: files beside what is printed, also where they cannot be written."""

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.report.test_subtitles import cues_by_ffmpeg
from tests.support.cli_process import TUBELET
from tests.support.running_server import Served
from tests.support.sample_clip import panning_clip
from tubelet.service.cli.app import app
from tubelet.service.report.csv_table import csv_header


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two videos of one name in two folders, one with a hostile name, and a file that is no video."""
    for name in ("one/clip.mp4", "two/clip.mp4", "one/=1+1.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(panning_clip(2.0))
    (tmp_path / "videos" / "bad.mp4").write_text("not a video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def classify(served: Served, *arguments: str) -> Result:
    """Run the command in this process, which is faster than starting another."""
    return CliRunner().invoke(app, ["classify", *arguments, "--server", served.target])


def table(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def test_files_of_one_video_agree_with_its_json(served: Served, folder: Path) -> None:
    files = ("--csv", "new/out.csv", "--srt", "new/out.srt", "--vtt", "new/out.VTT")
    done = classify(served, "videos/one/clip.mp4", "--json", *files)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    labels = [
        (segment["start_s"], segment["end_s"], rank, label["label"], label["score"])
        for segment in answer["segments"]
        for rank, label in enumerate(segment["labels"], 1)
    ]
    assert len(labels) == 6
    rows = table("new/out.csv")
    numbers = [(float(row["start_s"]), float(row["end_s"]), int(row["rank"])) for row in rows]
    assert [
        (*number, row["label"], float(row["score"])) for number, row in zip(numbers, rows, strict=True)
    ] == labels
    ((start, end, text),) = cues_by_ffmpeg(Path("new/out.srt"))
    assert (start, end, text.split()[0]) == (0.0, 2.0, answer["segments"][0]["labels"][0]["label"])
    assert re.search(r"\n\n00:00:00.000 --> 00:00:02.000\npan_right [01]\.", Path("new/out.VTT").read_text())


def test_files_of_several_videos_have_their_own_names(served: Served, folder: Path) -> None:
    done = classify(served, "-r", "videos", "--csv", "all.csv", "--srt", "subtitles")
    assert done.exit_code == 1  # for bad.mp4
    assert "videos/one/clip.mp4: " in done.stdout
    names = sorted(path.name for path in Path("subtitles").iterdir())
    assert names == ["1+1.srt", "clip-2.srt", "clip.srt"]
    videos = {row["video"] for row in table("all.csv")}
    assert videos == {"videos/one/clip.mp4", "videos/two/clip.mp4", "videos/one/=1+1.mp4"}


def test_table_begins_anew_unless_out_continues(served: Served, folder: Path) -> None:
    for _ in range(2):
        assert classify(served, "videos/one/clip.mp4", "--csv", "all.csv").exit_code == 0
        assert len(table("all.csv")) == 6
    continued = ("--csv", "all.csv", "--out", "out.jsonl")
    assert classify(served, "videos/one/clip.mp4", *continued).exit_code == 0
    assert classify(served, "videos/one/clip.mp4", "videos/two/clip.mp4", *continued).exit_code == 0
    assert [row["video"] for row in table("all.csv")] == ["videos/one/clip.mp4"] * 6 + [
        "videos/two/clip.mp4"
    ] * 6


def test_one_file_for_several_videos_is_refused(served: Served, folder: Path) -> None:
    refused = classify(served, "-r", "videos", "--srt", "all.srt")
    assert refused.exit_code == 2
    assert "all.srt has room for one video; name a folder for 4" in " ".join(refused.output.split())


@pytest.mark.parametrize(
    ("option", "path", "says"),
    [
        ("--csv", "videos", "cannot write videos: Is a directory"),
        ("--csv", "videos/bad.mp4", "videos/bad.mp4 is no table of tubelet's; name another --csv"),
        ("--csv", "videos/bad.mp4/x.csv", "cannot write videos/bad.mp4/x.csv: "),
        ("--vtt", "/proc/x.vtt", "cannot write /proc/x.vtt: "),
    ],
)
def test_file_that_cannot_be_written_loses_no_answer(
    served: Served, folder: Path, option: str, path: str, says: str
) -> None:
    done = classify(served, "videos/one/clip.mp4", "--json", option, path)
    assert done.exit_code == 1
    assert says in done.stderr
    assert json.loads(done.stdout)["segments"]
    assert Path("videos/bad.mp4").read_text() == "not a video"


def test_only_files_of_tubelet_are_replaced(served: Served, folder: Path) -> None:
    files = ("--srt", "x", "--vtt", "x", "--html", "x", "--no-video", "--threshold")
    assert classify(served, "videos/one/clip.mp4", *files, "0.1").exit_code == 0
    before = Path("x/clip.srt").read_text()
    assert classify(served, "videos/one/clip.mp4", *files, "1").exit_code == 0  # without any cue
    assert Path("x/clip.srt").read_text() == "" != before
    assert classify(served, "videos/one/clip.mp4", *files, "0.1").exit_code == 0
    assert Path("x/clip.srt").read_text() == before


@pytest.mark.parametrize(
    ("option", "path", "says"),
    [
        ("--srt", "clip.srt", "cannot write clip.srt: it exists, and tubelet did not write it"),
        ("--srt", ".", "cannot write clip.srt: it exists, and tubelet did not write it"),
        ("--vtt", ".", "cannot write clip.vtt: it exists, and tubelet did not write it"),
        ("--html", "index.html", "cannot write index.html: it exists, and tubelet did not write it"),
        ("--html", ".", "cannot write index.html: it exists, and tubelet did not write it"),
        ("--srt", "videos/bad.mp4", "videos/bad.mp4/clip.srt: videos/bad.mp4 is a file, not a folder"),
        ("--vtt", "videos/bad.mp4/x.vtt", "videos/bad.mp4/x.vtt: videos/bad.mp4 is a file, not a folder"),
        ("--html", "videos/bad.mp4/new", "videos/bad.mp4/new/clip.html: videos/bad.mp4 is a file, not a"),
        ("--srt", "folder.srt", "cannot write folder.srt: it is a folder"),
    ],
)
def test_other_files_are_refused_before_the_work(
    served: Served, folder: Path, option: str, path: str, says: str
) -> None:
    Path("clip.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nBy hand.\n\n")
    Path("clip.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nBy hand.\n")
    Path("index.html").write_text("<!doctype html>\n<title>By hand</title>")
    Path("all.csv").write_text(csv_header() + "kept")
    Path("folder.srt").mkdir()
    before = {each: each.read_bytes() for each in folder.glob("*.*") if each.is_file()}
    asked = served.metric("tubelet_requests_total", method="ClassifyStreaming")
    done = classify(served, "videos/one/clip.mp4", option, path, "--csv", "all.csv")
    assert done.exit_code == 1
    assert says in done.stderr
    assert done.stdout == ""
    assert {each: each.read_bytes() for each in folder.glob("*.*") if each.is_file()} == before
    assert served.metric("tubelet_requests_total", method="ClassifyStreaming") == asked


def test_full_disk_leaves_whole_rows(served: Served, folder: Path) -> None:
    """A limit of 1 KiB on the size of files imitates the full disk."""
    videos = ["videos/one/clip.mp4", "videos/two/clip.mp4"] * 3
    command = [
        TUBELET,
        "classify",
        *videos,
        "--json",
        "--csv",
        "all.csv",
        "--server",
        served.target,
        "--jobs",
        "1",
    ]
    limited = ["bash", "-c", 'ulimit -f 1; exec "$0" "$@"', *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr.count("cannot write all.csv: File too large; it has no rows from here on") == 1
    assert len(done.stdout.splitlines()) == 6
    rows = table("all.csv")
    assert rows
    assert len(rows) % 6 == 0
    assert all(row["score"] for row in rows)
