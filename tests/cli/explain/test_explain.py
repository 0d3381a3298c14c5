"""``tubelet explain``: the files that it writes, what it prints, and what it refuses."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.report.test_video_page import embedded
from tests.support.terminal import CTRL_C, terminal
from tubelet.service.cli.app import app
from tubelet.service.server.app import SAMPLE_CLIP

FILES = ["heads.png", "maps.npz", "overlay.mp4", "report.html"]


def explain(*arguments: str | Path) -> Result:
    """Run the command in this process, which is faster than starting another."""
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def refused(result: Result) -> str:
    """Return the sentence of a command that was refused, without the frame around it."""
    assert result.exit_code in (1, 2), result.output
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())


def test_the_files_stand_beside_the_video_and_agree_with_each_other(video: Path) -> None:
    found = explain(video, "--json")
    assert found.exit_code == 0, found.output
    printed = json.loads(found.stdout)
    folder = video.parent / "good-explained"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert printed["files"] == {name: str(folder / name) for name in printed["files"]}
    assert sorted(printed["files"]) == FILES

    with np.load(folder / "maps.npz", allow_pickle=False) as arrays:
        held = dict(arrays)
    assert held["label"].tolist() == [each["label"] for each in printed["maps"]]
    assert held["on_no_patch"] == pytest.approx([each["on_no_patch"] for each in printed["maps"]], abs=1e-6)
    for number, each in enumerate(printed["maps"]):
        shares = held["patches"][held["map"] == number]
        assert shares.shape == (each["steps"], each["rows"], each["columns"])
        assert shares.sum() + each["on_no_patch"] == pytest.approx(1, abs=1e-4)
        half = each["half"]
        inside = (held["start_s"] >= half["start_s"] - 1e-9) & (held["end_s"] <= half["end_s"] + 1e-9)
        assert held["patches"][inside & (held["map"] == number)].sum() >= 0.5 * shares.sum() - 1e-4
    layers, heads = held["heads"].shape[:2]
    assert held["heads"].sum(axis=(2, 3, 4)) + held["heads_on_no_patch"] == pytest.approx(1, abs=1e-4)
    assert held["heads_attended"].tolist() == ["patches"] * 4 + ["units"] * 2
    assert (layers, heads) == (6, 5)

    (track,) = embedded((folder / "report.html").read_text(), "maps")["tracks"]
    assert (track["method"], track["label"]) == ("relevance", "best label of each segment")
    assert track["ends_s"][-1] == pytest.approx(printed["duration_s"])
    assert Image.open(folder / "heads.png").info["Software"] == "tubelet"
    assert probed(folder / "overlay.mp4", "width,height") == probed(video, "width,height")


def test_a_second_run_replaces_the_files_and_prints_where_the_maps_are(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for name in FILES:
        (out / name).touch()
    found = explain(video, "--out", out, "--method", "rollout,attention", "--layer", "0,3", "--head", "1")
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[1] == "What camera-motion 1.2.0 looked at, by rollout: any label"
    headings = re.split(" {2,}", lines[2].strip())
    assert headings == ["segment", "label", "half of it in", "half of it on", "strongest", "on no patch"]
    row = r"  0:00:00\.0 - 0:00:01\.0  pan_right [01]\.\d\d  [\d.]+-[\d.]+ s +\d+ % of picture  .* \d+ %"
    assert re.fullmatch(row, lines[3])
    assert "Rollout depends on no label: it shows what the model looks at, not why it answers so." in lines
    assert lines[-2].startswith("the model's windows are longer than the segments, so that a map may have")
    assert "Also on the page: attention layer 0 head 1, attention layer 3 head 1" in lines
    assert lines[-1] == f"written to {out}: maps.npz, heads.png, report.html, overlay.mp4"
    assert (out / "notes.txt").read_text() == "mine"
    tracks = embedded((out / "report.html").read_text(), "maps")["tracks"]
    chosen = [(each["method"], each["layer"], each["head"]) for each in tracks]
    assert chosen[1:] == [("attention", "0", "1"), ("attention", "3", "1")]


@pytest.mark.slow
def test_two_labels_are_shown_as_a_difference(video: Path, tmp_path: Path) -> None:
    found = explain(video, "--out", tmp_path / "out", "--label", "pan_right, static")
    assert found.exit_code == 0, found.output
    assert "by relevance: pan_right rather than static" in found.stdout
    assert "by relevance: static rather than pan_right" in found.stdout
    tracks = embedded((tmp_path / "out" / "report.html").read_text(), "maps")["tracks"]
    assert [(each["label"], each["scale"]) for each in tracks] == [
        ("pan_right or static", "difference"),
        ("pan_right rather than static", "shares"),
        ("static rather than pan_right", "shares"),
    ]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_tubelet_did_not_write_is_kept(video: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    sentence = refused(explain(video, "--out", tmp_path / "out"))
    assert f"{name}: it exists, and tubelet did not write it" in sentence
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--method", "gaze"), "--method must be relevance, occlusion, rollout or attention; found 'gaze'"),
        (("--label", "a,b,c"), "--label takes one label, or two to compare; found 3"),
        (("--label", "a,"), "--label must be a list such as a,b; found 'a,'"),
        (("--label", ""), "--label must be a list such as a,b; found ''"),
        (("--label", '"a'), "--label must be a list such as a,b; found '\"a'"),
        (("--label", '"tench, Tinca tinca", static'), "camera-motion has no label 'tench, Tinca tinca'"),
        (("--method", "rollout", "--label", "a"), "--label belongs to relevance and occlusion"),
        (("--layer", "1"), "--layer and --head need --method attention"),
        (("--method", "attention", "--head", "x"), "--head must be whole numbers such as 0,3; found 'x'"),
        (("--model", "gaze"), "no model 'gaze' in the store"),
        pytest.param(("--label", "gaze"), "camera-motion has no label 'gaze'", marks=pytest.mark.slow),
        pytest.param(
            ("--label", "static,static"), "label 'static' is compared with itself", marks=pytest.mark.slow
        ),
        pytest.param(
            ("--method", "attention", "--layer", "6"), "there is no layer 6", marks=pytest.mark.slow
        ),
        pytest.param(("--method", "attention", "--head", "5"), "there is no head 5", marks=pytest.mark.slow),
    ],
)
def test_questions_without_an_answer(
    video: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused(explain(video, "--out", tmp_path / "out", *arguments))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_named_before_the_work(video: Path) -> None:
    found = explain(video, "--out", "/proc/nope", "--model", "gaze")
    assert refused(found) == "cannot write /proc/nope: No such file or directory"


@pytest.mark.parametrize("name", ["-", "https://example.com/clip.mp4"])
def test_what_is_no_file_is_refused(name: str) -> None:
    assert f"VIDEO must be a file, since it is read several times; found '{name}'" in refused(explain(name))


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    sentence = refused(explain(tmp_path / "missing.mp4"))
    assert sentence == f"cannot read {tmp_path}/missing.mp4: No such file or directory"
    (tmp_path / "text.mp4").write_text("no video")
    found = explain(tmp_path / "text.mp4", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["error"]["reason"] == "NOT_A_VIDEO"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.mp4"]


@pytest.mark.slow
def test_ctrl_c_ends_it_with_a_sentence(tmp_path: Path) -> None:
    with terminal("explain", str(SAMPLE_CLIP), "--out", str(tmp_path / "out"), columns=120) as shown:
        shown.wait_for("relevance: explained up to 0:00:0")
        shown.type(CTRL_C)
        assert shown.wait() == 130
        assert "interrupted" in shown.text
        assert "Traceback" not in shown.text
    assert not list(tmp_path.glob("out/*"))


def probed(path: Path, entries: str) -> str:
    """Return what ffprobe says of a video."""
    command = ["ffprobe", "-v", "error", "-show_entries", f"stream={entries}", "-of", "csv=p=0", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
