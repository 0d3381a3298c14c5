"""``tubelet evaluate`` with real videos on a real server: exit codes, messages and files."""

import json
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.support.cli_process import tubelet
from tests.support.running_server import Served
from tests.support.sample_clip import panning_clip
from tubelet.models.repository.repository import ModelStore
from tubelet.service.cli.app import app
from tubelet.service.cli.evaluation.comparison import read_evaluation
from tubelet.service.client import Client


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pans to the right: one labelled as a tilt, one in a nested folder; and an invalid file."""
    folder = tmp_path / "data"
    for name in ("pan_right/a.mp4", "pan_right/more/b.mp4", "tilt_up/wrong.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(panning_clip(1.0))
    (folder / "pan_right" / "bad.mp4").write_text("not a video")
    (folder / "pan_right" / ".hidden").write_text("not listed")
    (folder / "README.txt").write_text("in no class")
    return folder


def evaluate(*arguments: str) -> Result:
    """Run the command in this process, which is faster than starting another."""
    return CliRunner().invoke(app, ["evaluate", *arguments])


def evaluated(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def answered(served: Served) -> float:
    return served.metric("tubelet_requests_total", method="ClassifyStreaming", code="OK")


def test_evaluate_folder_of_class_folders(served: Served, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (str(data), "--server", served.target, "--out", str(out))
    report = evaluated(evaluate(*command, "--json"))
    assert (report["model"], report["clips"], report["crops"]) == ("camera-motion", None, None)
    assert (report["videos"], report["activation"]) == (3, "softmax")
    assert report["top1"] == pytest.approx(2 / 3)
    assert report["top1"] <= report["top5"] <= 1
    keys = ("label", "videos", "predicted", "recall", "precision", "f1")
    assert [tuple(each[key] for key in keys) for each in report["classes"]] == [
        ("pan_right", 2, 3, 1.0, pytest.approx(2 / 3), pytest.approx(0.8)),
        ("tilt_up", 1, 0, 0.0, None, 0.0),
    ]
    assert report["confusion"] == {"labels": ["pan_right", "tilt_up"], "counts": [[2, 0], [1, 0]]}
    assert report["videos_per_s"] > 0
    assert report["cost_per_video"] is None, "the server's cost is not that of this process"
    (skipped,) = report["skipped"]
    assert (skipped["video"], skipped["reason"]) == ("pan_right/bad.mp4", "NOT_A_VIDEO")
    assert report["failures"] == {"NOT_A_VIDEO": 1}
    (mistake,) = report["surest_mistakes"]
    assert (mistake["video"], mistake["label"], mistake["predicted"]) == (
        "tilt_up/wrong.mp4",
        "tilt_up",
        "pan_right",
    )
    assert sum(each["videos"] for each in report["calibration"]["bins"]) == 3
    assert json.loads((out / "report.json").read_text()) == report
    with Image.open(out / "confusion.png") as picture:
        assert picture.format == "PNG"

    text = evaluate(*command)
    assert text.exit_code == 0
    assert "skipped pan_right/bad.mp4: " in text.stderr
    assert "3 videos, 1 skipped (1 NOT_A_VIDEO)" in text.stdout
    assert "top 1  0.667  (95 %: 0.208 to 0.939)" in text.stdout
    assert "pan_right, not tilt_up: tilt_up/wrong.mp4" in text.stdout
    rows = [line.split() for line in text.stdout.splitlines()]
    assert ["pan_right", "2", "1.000", "0.667", "0.800"] in rows
    assert ["2", "tilt_up", "1", "."] in rows


def test_evaluation_resumes_with_remaining_videos(served: Served, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (str(data), "--server", served.target, "--out", str(out), "--json")
    first = evaluated(evaluate(*command))
    results = out / "results.jsonl"
    whole = results.read_bytes()
    settings = json.loads(whole.splitlines()[0])["settings"]
    assert settings["fingerprint"] == ModelStore().find(settings["model"]).fingerprint
    before = answered(served)

    again = evaluate(*command)
    assert "3 of 4 videos are done already" in again.stderr
    report = evaluated(again)
    assert answered(served) == before
    assert report["videos_per_s"] is None
    for failure in (*first["skipped"], *report["skipped"]):
        del failure["request_id"]  # what failed was asked again, by a call of its own
    assert {key: report[key] for key in ("top1", "confusion", "skipped")} == {
        key: first[key] for key in ("top1", "confusion", "skipped")
    }

    results.write_bytes(whole[:-20])  # as a process leaves it that is killed while it writes
    cut = evaluate(*command)
    assert "2 of 4 videos are done already" in cut.stderr
    assert evaluated(cut)["confusion"] == first["confusion"]
    assert answered(served) == before + 1
    names = [json.loads(line).get("video") for line in results.read_text().splitlines()]
    assert sorted(names[1:]) == ["pan_right/a.mp4", "pan_right/more/b.mp4", "tilt_up/wrong.mp4"]

    other = evaluate(*command, "--clips", "2")
    assert other.exit_code == 2
    assert "clips was None, is 2" in other.stderr


def pictures(page: Path) -> dict[str, bytes]:
    """Return the pictures of a page's clips, by their names."""
    (content,) = re.findall(r'type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return {clip["name"]: b64decode(clip["picture"]) for clip in json.loads(content)["clips"]}


def test_evaluation_page_has_a_picture_of_each_clip(served: Served, data: Path, tmp_path: Path) -> None:
    command = (str(data), "--server", served.target, "--out", str(tmp_path / "out"))
    done = evaluate(*command, "--html", str(tmp_path / "pages" / "report.html"))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"the page is {tmp_path / 'pages' / 'report.html'}"
    found = pictures(tmp_path / "pages" / "report.html")
    assert found.keys() == {"pan_right/a.mp4", "pan_right/more/b.mp4", "tilt_up/wrong.mp4"}
    for picture in found.values():
        with Image.open(BytesIO(picture)) as image:
            assert image.format == "JPEG"
            assert len(image.getcolors(1 << 20) or ()) > 10  # not a blank one
    assert "NOT_A_VIDEO" in (tmp_path / "pages" / "report.html").read_text()


def test_page_of_an_earlier_run_gets_its_pictures(served: Served, data: Path, tmp_path: Path) -> None:
    command = (str(data), "--server", served.target, "--out", str(tmp_path / "out"), "--json")
    first = evaluated(evaluate(*command))
    before = answered(served)
    again = evaluated(evaluate(*command, "--html", str(tmp_path / "report.html")))
    assert again["confusion"] == first["confusion"]
    assert again["videos_per_s"] is None
    assert answered(served) == before + 3
    assert all(pictures(tmp_path / "report.html").values())
    evaluated(evaluate(*command, "--html", str(tmp_path / "report.html")))
    assert answered(served) == before + 3


def test_page_that_cannot_be_written_loses_no_answer(served: Served, data: Path, tmp_path: Path) -> None:
    page = "/proc/tubelet/report.html"  # even root can create no folder there
    command = (str(data), "--server", served.target, "--out", str(tmp_path / "out"), "--json")
    done = evaluate(*command, "--html", page)
    assert done.exit_code == 1
    assert f"cannot write {page}: " in done.stderr
    report, error = map(json.loads, done.stdout.splitlines())
    assert report["videos"] == 3
    assert error["error"]["reason"] == "SYSTEM_ERROR"
    assert (tmp_path / "out" / "report.json").exists()


def test_evaluate_csv_in_process_with_views(data: Path, tmp_path: Path) -> None:
    table = data / "labels.csv"
    table.write_text("pan_right/a.mp4,pan_right\npan_right/gone.mp4,tilt_up\n")
    views = ("--clips", "2", "--crops", "3", "--model", "camera-motion", "--out", str(tmp_path / "out"))
    done = tubelet("evaluate", str(table), *views)
    assert done.returncode == 0, done.stderr
    assert "2 clips x 3 crops" in done.stdout
    assert "1 videos, 1 skipped" in done.stdout
    assert "top 1  1.000" in done.stdout
    assert "gone.mp4: No such file" in done.stderr


def test_evaluate_list_with_class_numbers(served: Served, client: Client, data: Path, tmp_path: Path) -> None:
    labels = list(client.model("camera-motion").labels)
    right, up = labels.index("pan_right"), labels.index("tilt_up")
    (data / "a clip.mp4").write_bytes(panning_clip(1.0))
    (data / "val.txt").write_text(f"pan_right/a.mp4 {right}\na clip.mp4 {right}\ntilt_up/wrong.mp4 {up}\n")
    out = ("--out", str(tmp_path / "out"), "--json")
    report = evaluated(evaluate(str(data / "val.txt"), "--server", served.target, *out))
    assert report["confusion"] == {"labels": ["pan_right", "tilt_up"], "counts": [[2, 0], [1, 0]]}


def test_a_label_that_was_corrected_is_kept_for_comparisons(
    served: Served, data: Path, tmp_path: Path
) -> None:
    clips, out = tmp_path / "clips.csv", tmp_path / "out"
    command = (str(clips), "--server", served.target, "--out", str(out), "--json")
    for label in ("tilt_up", "pan_right"):
        clips.write_text(f"{data}/tilt_up/wrong.mp4,{label}\n{data}/pan_right/a.mp4,pan_right\n")
        report = evaluated(evaluate(*command))
    assert report["top1"] == 1
    assert {each.label for each in read_evaluation(out).outcomes.values()} == {"pan_right"}


def test_unknown_labels_stop_an_evaluation(served: Served, data: Path, tmp_path: Path) -> None:
    (data / "pan_right").rename(data / "Pan right")
    done = evaluate(str(data), "--server", served.target, "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert "camera-motion has no label 'Pan right' (closest: 'pan_right'); it has: static, " in done.stderr
    assert not (tmp_path / "out").exists()


def test_missing_dataset_is_one_sentence() -> None:
    done = evaluate("/nope")
    assert done.exit_code == 2
    assert done.stderr == "/nope cannot be read: No such file or directory\n"


def test_invalid_options_stop_an_evaluation(served: Served, data: Path, tmp_path: Path) -> None:
    command = (str(data), "--server", served.target, "--out", str(tmp_path / "out"), "--json")
    done = evaluate(*command, "--crops", "2")
    assert done.exit_code == 2
    assert "2 crops were requested; 1 or 3 are possible" in done.stderr
    # Nothing was answered, so the folder may be used with options that are right.
    assert evaluated(evaluate(*command, "--crops", "3"))["crops"] == 3


def test_evaluation_without_classified_videos_fails(served: Served, tmp_path: Path) -> None:
    (tmp_path / "data" / "static").mkdir(parents=True)
    (tmp_path / "data" / "static" / "bad.mp4").write_text("not a video")
    command = (str(tmp_path / "data"), "--server", served.target, "--out", str(tmp_path / "out"))
    done = evaluate(*command, "--json")
    assert done.exit_code == 1
    assert "skipped static/bad.mp4" in done.stderr
    assert "no video could be classified" in done.stderr
    assert json.loads(done.stdout)["error"]["reason"] == "ALL_VIDEOS_FAILED"
