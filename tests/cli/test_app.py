"""The commands in processes of their own, with their exit codes."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.cli_process import serving, tubelet
from tests.support.running_server import Served
from tests.support.sample_clip import panning_clip
from tubelet.service.cli.app import app
from tubelet.service.config.config import load_config
from tubelet.service.server.app import SAMPLE_CLIP
from tubelet.service.types.uri import is_covered, parse_prefix, parse_uri


@pytest.fixture
def clips(tmp_path: Path) -> tuple[str, str]:
    """A valid clip and an invalid one."""
    good, bad = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    good.write_bytes(panning_clip(2.0))
    bad.write_text("not a video")
    return str(good), str(bad)


@pytest.mark.parametrize("where", ["a server", "this process"])
def test_classify_json_prints_one_object_for_each_video(
    served: Served, clips: tuple[str, str], where: str
) -> None:
    good, bad = clips
    server = ("--server", served.target) if where == "a server" else ()
    done = tubelet("classify", bad, good, "missing.mp4", "--json", "--in-order", *server)
    failed, answer, missing = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 1
    assert failed["video"] == bad
    assert (failed["error"]["code"], failed["error"]["reason"]) == ("INVALID_ARGUMENT", "NOT_A_VIDEO")
    assert missing["error"]["reason"] == "FILE_NOT_READABLE"
    assert missing["error"]["message"] == "No such file or directory"
    assert answer["video"] == good
    assert answer["model"] == "camera-motion"
    assert answer["duration_s"] == 2.0
    assert answer["labels"][0]["label"] == "pan_right"
    assert [(segment["start_s"], segment["end_s"]) for segment in answer["segments"]] == [(0, 1), (1, 2)]
    assert 0 < answer["segments"][0]["labels"][0]["score"] <= 1


@pytest.mark.parametrize("where", ["a server", "this process"])
def test_unknown_model_fails_each_video_in_json(served: Served, where: str) -> None:
    server = ("--server", served.target) if where == "a server" else ()
    sample = str(SAMPLE_CLIP)
    done = tubelet("classify", sample, sample, "--model", "nope", "--json", *server)
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["video"] for row in rows] == [sample] * 2
    for row in rows:
        assert (row["error"]["code"], row["error"]["reason"]) == ("NOT_FOUND", "UNKNOWN_MODEL")
        assert "model 'nope'" in row["error"]["message"]


def test_classify_prints_text_by_default(served: Served, clips: tuple[str, str]) -> None:
    ok = {"method": "ClassifyStreaming", "code": "OK"}
    before = served.metric("tubelet_requests_total", **ok)
    done = tubelet("classify", clips[0], "--server", served.target, "--whole-video", "--top-k", "1")
    assert done.returncode == 0, done.stderr
    assert served.metric("tubelet_requests_total", **ok) == before + 1
    assert "0:00:02.0, 320x240, 25 fps, 50 frames, h264" in done.stdout
    assert "0:00:00.0 - 0:00:02.0  pan_right" in done.stdout
    assert "whole video" in done.stdout


def test_videos_above_the_server_limit_are_retried(clips: tuple[str, str]) -> None:
    with serving(TUBELET_SERVER__MAX_VIDEOS_IN_FLIGHT="1", TUBELET_SERVER__RETRY_AFTER_S="0.2") as (
        _,
        target,
    ):
        done = tubelet("classify", *[clips[0]] * 6, "--json", "--server", target)
    assert done.returncode == 0
    assert [json.loads(line)["labels"][0]["label"] for line in done.stdout.splitlines()] == 6 * ["pan_right"]


def test_multi_view_gives_one_segment_and_excludes_windows(served: Served, clips: tuple[str, str]) -> None:
    command = ("classify", clips[0], "--server", served.target, "--json")
    answer = json.loads(tubelet(*command, "--clips", "3", "--crops", "3").stdout)
    assert [(segment["start_s"], segment["end_s"]) for segment in answer["segments"]] == [(0, 2)]
    assert answer["labels"][0]["label"] == "pan_right"
    rounded = json.loads(tubelet(*command, "--window", "1", "--stride", "0.01").stdout)
    assert rounded["warnings"][0].startswith("the stride of 0.01 s was rounded to 0.25 s: ")
    rejected = json.loads(tubelet(*command, "--crops", "2").stdout)
    assert "2 crops were requested; 1 or 3 are possible" in rejected["error"]["message"]
    assert tubelet(*command, "--clips", "3", "--stride", "1").returncode == 2


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--clips 3 --window 2", "--window cannot be combined with --clips"),
        ("--crops 3 --whole-video", "--whole-video cannot be combined with --crops"),
        ("--window 2 --stride 1 --clips 3", "--window and --stride cannot be combined with --clips"),
        (
            "--whole-video --stride 1 --clips 3 --crops 1",
            "--whole-video cannot be combined with --stride or --clips and --crops",
        ),
    ],
)
def test_conflicting_flags_are_named(flags: str, says: str) -> None:
    done = CliRunner().invoke(app, ["classify", "x", *flags.split()], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    message = " ".join(done.stderr.replace("\u2502", " ").split())  # without the box around it
    assert f"Invalid value: {says} " in message


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("classify", "--window", "nan"),
        ("classify", "--window", "inf"),
        ("classify", "--stride", "nan"),
        ("classify", "--stride", "1e+300"),
        ("classify", "--range", "1-inf"),
        ("classify", "--range", "nan-2"),
        ("models import", "--window", "inf"),
    ],
)
def test_invalid_times_are_rejected(command: str, option: str, value: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "x", option, value])
    said = " ".join(done.stderr.replace("\u2502", " ").split())
    assert done.exit_code == 2, said
    assert option in said
    assert value in said.partition("found")[2]


def test_models_list_of_server_and_of_installation(served: Served) -> None:
    here = tubelet("models", "list", "--json")
    there = tubelet("models", "list", "--json", "--server", served.target)
    by_name = [
        sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda row: row["model"])
        for done in (here, there)
    ]
    assert by_name[0] == by_name[1]
    assert [row["model"] for row in by_name[0] if row["default"]] == ["camera-motion"]
    _header, first, *_others = tubelet("models", "list", COLUMNS="30").stdout.splitlines()
    assert first.split()[0] == "camera-motion"
    assert first.split()[-1] == "default"


@pytest.mark.parametrize("command", [["models", "list"], ["classify", "CLIP"], ["evaluate", "CLIP"]])
def test_commands_with_server_do_not_import_torch(
    served: Served, clips: tuple[str, str], command: list[str]
) -> None:
    """Importing it takes longer than the answer."""
    asked = [clips[0] if word == "CLIP" else word for word in command]
    if command[0] == "evaluate":
        Path(asked[1]).with_suffix(".csv").write_text(f"{clips[0]},pan_right\n")
        asked[1:] = [str(Path(asked[1]).with_suffix(".csv")), "--out", str(Path(asked[1]).parent / "out")]
    script = f"""
import sys
from tubelet.service.cli.app import app
status = app({[*asked, "--server", served.target]!r}, standalone_mode=False)
print(status, {{"torch", "av", "transformers"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1] in ("None set()", "0 set()"), done.stderr


def test_demo_prints_labels_and_metrics() -> None:
    done = tubelet("demo", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    for label in ("static", "pan_right", "zoom_in", "tilt_up", "roll_cw"):
        assert f".0  {label} " in done.stdout
    labels = "code='OK',method='ClassifyStreaming',model='camera-motion'"
    assert f"tubelet_requests_total{{{labels}}} 1\n" in done.stdout
    assert "tubelet_video_seconds_total 16\n" in done.stdout  # of one video, no warm-up
    stages = ["upload", "probe", "decode", "queue", "encode", "classify", "total"]
    assert re.findall(r"stage='(\w+)'", done.stdout) == stages
    assert re.findall(r"(\w+) \d+ ms", done.stdout) == stages
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Starting a server")
    assert lines[-5] == "Next:"
    assert all(line.startswith("  tubelet ") for line in lines[-4:])


@pytest.mark.parametrize(
    ("video", "says"),
    [
        ("/nope", "cannot read /nope: No such file or directory"),
        ("file:///nope", "the demo uploads a file; file:///nope is a URI"),
    ],
)
def test_demo_checks_the_file_before_it_starts_a_server(video: str, says: str) -> None:
    done = tubelet("demo", video)
    assert done.returncode == 1
    assert says in done.stderr
    assert "ready" not in done.stdout


def test_demo_names_the_wrong_setting() -> None:
    done = tubelet("demo", TUBELET_SERVER__DRAIN_S="-5")
    assert done.returncode == 2
    assert "server.drain_s" in done.stderr
    assert "Traceback" not in done.stderr


def test_unsupported_uri_scheme_names_the_supported_ones(served: Served) -> None:
    done = tubelet("classify", "ftp://a/b.mp4", "--server", served.target)
    assert done.returncode == 1
    assert "it must start with one of file://, http://" in done.stderr


def test_uri_that_is_not_allowed_gives_a_command_that_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = (tmp_path / "a clip.mp4").as_uri()
    other = "https://media.example.com:8443/clips/a.mp4?token=1&x=2"
    rejected = tubelet("classify", uri, other, "--json")
    assert rejected.returncode == 1
    first, second = (json.loads(line)["error"] for line in rejected.stdout.splitlines())
    assert (first["code"], first["reason"]) == ("PERMISSION_DENIED", "URI_NOT_ALLOWED")
    prefix = """TUBELET_FETCH__ALLOW='["https://media.example.com:8443/"]'"""
    assert second["message"].endswith(f"to allow it: {prefix} tubelet classify '{other}'")
    variable, *command = shlex.split(first["message"].partition("to allow it: ")[2])
    assert command == ["tubelet", "classify", uri]
    monkeypatch.setenv(*variable.split("=", 1))
    assert is_covered(parse_uri(uri), map(parse_prefix, load_config().fetch.allow))


@pytest.mark.parametrize("command", [("demo",), ("evaluate", "clips"), ("evaluate", "--compare", "a", "b")])
def test_another_program_s_page_is_refused_before_the_work(tmp_path: Path, command: tuple[str, ...]) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html>by hand")
    refused = CliRunner().invoke(app, [*command, "--html", str(page)])
    assert refused.exit_code == 1
    assert f"cannot write {page}: it exists, and tubelet did not write it" in refused.stderr
    assert page.read_text() == "<html>by hand"
