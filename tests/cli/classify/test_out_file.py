"""``tubelet classify --out``: results that are written, continued and rejected."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.support.cli_process import TUBELET
from tests.support.running_server import Served
from tests.support.sample_clip import panning_clip
from tubelet.service.cli.app import app
from tubelet.service.cli.runs.results_log import open_results


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two valid videos and an invalid one."""
    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "clips" / name).write_bytes(panning_clip(1.0))
    (tmp_path / "clips" / "bad.mp4").write_text("not a video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def classify(served: Served, *arguments: str) -> Result:
    """Run the command in this process, which is faster than starting another."""
    return CliRunner().invoke(
        app, ["classify", "-r", "clips", "--server", served.target, "--out", "out.jsonl", *arguments]
    )


def results(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()][1:]


def asked(served: Served) -> float:
    return served.metric("tubelet_requests_total", method="ClassifyStreaming")


def test_out_file_is_written_and_continued(served: Served, folder: Path) -> None:
    first = classify(served)
    assert first.exit_code == 1
    assert first.stdout == ""
    assert "clips/bad.mp4: " in first.stderr
    assert "2 classified, 1 failed, in 0:" in first.stderr
    assert "results are in out.jsonl" in first.stderr
    kept = {result["video"]: result for result in results()}
    assert sorted(kept) == ["clips/a.mp4", "clips/b.mp4", "clips/bad.mp4"]
    assert kept["clips/a.mp4"]["segments"][0]["labels"][0]["label"] == "pan_right"
    assert kept["clips/bad.mp4"]["error"]["reason"] == "NOT_A_VIDEO"

    before = asked(served)
    again = classify(served)
    assert again.exit_code == 1  # one failed, although not now
    assert "3 of 3 videos are done already (1 failed; --retry-failed classifies them again)" in again.stderr
    assert asked(served) == before
    assert len(results()) == 3

    (folder / "clips" / "bad.mp4").write_bytes(panning_clip(1.0))
    retried = classify(served, "--retry-failed", "--json")
    assert retried.exit_code == 0, retried.output
    assert json.loads(retried.stdout)["video"] == "clips/bad.mp4"
    assert asked(served) == before + 1
    assert classify(served).exit_code == 0

    whole = Path("out.jsonl").read_bytes()
    Path("out.jsonl").write_bytes(whole[:-20])  # as a process leaves it that is killed while it writes
    assert classify(served, "--retry-failed").exit_code == 0
    assert asked(served) == before + 2
    assert results()[-1]["video"] == "clips/bad.mp4"


@pytest.mark.parametrize("option", [("--top-k", "5"), ("--whole-video",), ("--range", "0-1"), ("--fast",)])
def test_out_file_of_other_options_is_rejected(served: Served, folder: Path, option: tuple[str, ...]) -> None:
    classify(served)
    whole = Path("out.jsonl").read_bytes()
    rejected = classify(served, *option, "--json")
    assert rejected.exit_code == 2
    assert json.loads(rejected.stdout)["error"]["reason"] == "RESULTS_MISMATCH"
    assert "out.jsonl holds results of other settings (" in rejected.stderr
    assert Path("out.jsonl").read_bytes() == whole


def test_out_file_in_use_is_rejected(served: Served, folder: Path) -> None:
    with open_results(Path("out.jsonl"), {}, dict):
        rejected = classify(served)
    assert rejected.exit_code == 2
    assert "another run is writing to out.jsonl" in rejected.stderr


def test_lost_server_is_not_written_as_a_result(served: Served, folder: Path) -> None:
    assert (
        CliRunner()
        .invoke(app, ["classify", "clips/a.mp4", "--out", "x.jsonl", "--server", "127.0.0.1:1"])
        .exit_code
        == 1
    )
    assert not Path("x.jsonl").exists()


@pytest.mark.parametrize("options", [[], ["--in-order", "--jobs", "1"]])
def test_full_disk_for_out_file_prints_the_rest(served: Served, folder: Path, options: list[str]) -> None:
    """A limit of 1 KiB on the size of files imitates the full disk."""
    videos = ["clips/a.mp4"] * 6
    command = [TUBELET, "classify", *videos, *options, "--out", "out.jsonl", "--server", served.target]
    limited = ["bash", "-c", 'ulimit -f 1; exec "$0" "$@"', *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "cannot write out.jsonl: File too large; the answers from here on are printed" in done.stderr
    printed = [json.loads(line)["video"] for line in done.stdout.splitlines()]
    assert printed
    assert printed + [result["video"] for result in results()] == videos


def test_out_file_without_room_for_any_result_prints_all_answers(served: Served, folder: Path) -> None:
    """A limit of 0 bytes on the size of files imitates the full disk."""
    command = [TUBELET, "classify", "-r", "clips", "--out", "out.jsonl", "--server", served.target]
    limited = ["bash", "-c", 'ulimit -f 0; exec "$0" "$@"', *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr.count("cannot write out.jsonl: File too large; the answers are printed\n") == 1
    printed = {answer["video"]: answer for answer in map(json.loads, done.stdout.splitlines())}
    assert sorted(printed) == ["clips/a.mp4", "clips/b.mp4", "clips/bad.mp4"]
    assert printed["clips/a.mp4"]["segments"][0]["labels"][0]["label"] == "pan_right"
    assert printed["clips/bad.mp4"]["error"]["reason"] == "NOT_A_VIDEO"


def test_out_file_in_a_folder_that_cannot_be_written_prints_all_answers(served: Served, folder: Path) -> None:
    """Nobody, not even root, can create a file in /proc."""
    (folder / "clips" / "bad.mp4").unlink()
    done = classify(served, "--out", "/proc/out.jsonl")
    assert done.exit_code == 1
    assert "cannot write /proc/out.jsonl: " in done.stderr
    assert "; the answers are printed\n" in done.stderr
    assert sorted(json.loads(line)["video"] for line in done.stdout.splitlines()) == [
        "clips/a.mp4",
        "clips/b.mp4",
    ]


@pytest.mark.parametrize("out", ["clips", "/dev/null", "clips/a.mp4/x", "clips/a.mp4"])
def test_out_that_is_not_a_regular_file_is_one_sentence(served: Served, folder: Path, out: str) -> None:
    done = classify(served, "--out", out)
    assert done.exit_code in (1, 2)
    (sentence,) = done.stderr.splitlines()
    assert out in sentence


def test_unreadable_arguments_fail_and_the_others_go_on(served: Served, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "list").write_text("clips/b.mp4\nnot there.mp4\n")
    done = CliRunner().invoke(
        app,
        ["classify", "clips", "empty", "clips/a.mp4", "--from-file", "list", "--server", served.target],
    )
    assert done.exit_code == 1
    assert "clips: is a folder; -r classifies the videos in it" in done.stderr
    assert "not there.mp4: No such file or directory" in done.stderr
    assert "2 classified, 3 failed" in done.stderr
    assert done.stdout.count("whole video") == 2
    done = CliRunner().invoke(app, ["classify", "-r", "empty", "--json"])
    assert done.exit_code == 1
    assert "has no videos" in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize("arguments", [(), ("x", "--stream"), ("x", "--retry-failed")])
def test_options_that_need_another_option_name_it(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["classify", *arguments])
    assert done.exit_code == 2
    assert any(name in done.stderr for name in ("--from-file", "--json", "--out"))
