"""``tubelet classify --out``: what is kept, asked again and refused."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.support.cli_process import TUBELET
from tests.support.running_server import Served
from tests.support.sample_clip import pan
from tubelet.service.cli.app import app
from tubelet.service.cli.runs.results_log import open_results


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two good videos and a bad one."""
    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "clips" / name).write_bytes(pan(1.0))
    (tmp_path / "clips" / "bad.mp4").write_text("not a video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def classify(served: Served, *arguments: str) -> Result:
    """The command in this process, which spares each call the start of another."""
    return CliRunner().invoke(
        app, ["classify", "-r", "clips", "--server", served.target, "--out", "out.jsonl", *arguments]
    )


def results(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()][1:]


def asked(served: Served) -> float:
    return served.metric("tubelet_requests_total", method="ClassifyStreaming")


def test_results_are_kept_and_continued(served: Served, folder: Path) -> None:
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
    assert "3 of 3 videos are done already (1 failed; --retry-failed asks for them again)" in again.stderr
    assert asked(served) == before
    assert len(results()) == 3

    (folder / "clips" / "bad.mp4").write_bytes(pan(1.0))
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
def test_results_of_other_options_are_refused(served: Served, folder: Path, option: tuple[str, ...]) -> None:
    classify(served)
    whole = Path("out.jsonl").read_bytes()
    refused = classify(served, *option, "--json")
    assert refused.exit_code == 2
    assert json.loads(refused.stdout)["error"]["reason"] == "RESULTS_MISMATCH"
    assert "out.jsonl holds results of other settings (" in refused.stderr
    assert Path("out.jsonl").read_bytes() == whole


def test_results_that_another_run_writes_are_refused(served: Served, folder: Path) -> None:
    with open_results(Path("out.jsonl"), {}, dict):
        refused = classify(served)
    assert refused.exit_code == 2
    assert "another run writes to out.jsonl" in refused.stderr


def test_a_server_that_is_gone_is_no_result(served: Served, folder: Path) -> None:
    assert (
        CliRunner()
        .invoke(app, ["classify", "clips/a.mp4", "--out", "x.jsonl", "--server", "127.0.0.1:1"])
        .exit_code
        == 1
    )
    assert not Path("x.jsonl").exists()


def test_a_full_disk_is_said_and_the_rest_is_printed(served: Served, folder: Path) -> None:
    """A limit of 1 KiB on the size of files stands for the disk."""
    videos = ["clips/a.mp4"] * 6
    command = [TUBELET, "classify", *videos, "--out", "out.jsonl", "--server", served.target]
    limited = ["bash", "-c", 'ulimit -f 1; exec "$0" "$@"', *command]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "cannot write out.jsonl: File too large; further answers are printed" in done.stderr
    printed = [json.loads(line)["video"] for line in done.stdout.splitlines()]
    assert printed
    assert printed + [result["video"] for result in results()] == videos


@pytest.mark.parametrize("out", ["clips", "/dev/null", "clips/a.mp4/x", "clips/a.mp4"])
def test_what_cannot_be_continued_is_one_sentence(served: Served, folder: Path, out: str) -> None:
    done = classify(served, "--out", out)
    assert done.exit_code in (1, 2)
    (sentence,) = done.stderr.splitlines()
    assert out in sentence


def test_what_is_no_video_is_said_and_the_rest_goes_on(served: Served, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "list").write_text("clips/b.mp4\nnot there.mp4\n")
    done = CliRunner().invoke(
        app,
        ["classify", "clips", "empty", "clips/a.mp4", "--from-file", "list", "--server", served.target],
    )
    assert done.exit_code == 1
    assert "clips: is a folder; with -r, the videos in it are classified" in done.stderr
    assert "not there.mp4: No such file or directory" in done.stderr
    assert "2 classified, 3 failed" in done.stderr
    assert done.stdout.count("whole video") == 2
    done = CliRunner().invoke(app, ["classify", "-r", "empty", "--json"])
    assert done.exit_code == 1
    assert "has no videos" in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize("arguments", [(), ("x", "--stream"), ("x", "--retry-failed")])
def test_options_that_need_another_name_it(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["classify", *arguments])
    assert done.exit_code == 2
    assert any(name in done.stderr for name in ("--from-file", "--json", "--out"))
