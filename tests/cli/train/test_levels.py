"""``tubelet train`` by gradient descent: levels that serve, resume exactly, and refuse what does not fit."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from tests.cli.train.conftest import SCENES
from tests.support.cli_process import TUBELET
from tests.support.train_fields import documented
from tubelet.models.repository.repository import ModelStore
from tubelet.models.training.fine_tuning import EpochFigures, Progress
from tubelet.service.cli.app import app
from tubelet.service.cli.train.levels.tuning import Run, run_warnings
from tubelet.service.cli.train.levels.watch import epoch_json

pytestmark = pytest.mark.usefixtures("one_thread")


def train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def report(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def weights(store: Path, name: str) -> dict[str, Any]:
    return load_file(store / name / "1" / "weights.safetensors")


def assert_same_weights(store: Path, name: str, other: str) -> None:
    wanted, found = weights(store, name), weights(store, other)
    assert wanted.keys() == found.keys()
    assert [key for key, value in wanted.items() if not value.equal(found[key])] == []


def test_temporal_trains_a_model_that_serves(clips: Path, store: Path, tmp_path: Path) -> None:
    done = train(clips, "--name", "moves", "--level", "temporal", "--epochs", "3", "--json")
    said = report(done)
    assert set(said) == documented("object", "models", "epochs")
    assert said["level"] == "temporal"
    assert 1 <= said["epochs"] <= 3
    assert len(said["history"]) == said["epochs"]
    assert said["measured_on"] == "one of 5 parts of the scenes, held out"
    assert said["figures"]["clips"] == 2
    assert said["train_clips"] + said["validation_clips"] + 2 == 2 * SCENES
    assert f"kept in {said['out']}" in "".join(done.stderr.split("\n"))
    assert {"best.pt", "last.pt", "training.json"} <= {file.name for file in Path(said["out"]).iterdir()}
    entry = ModelStore(store).find("moves")
    assert entry.spec.provenance is not None
    assert entry.spec.provenance.source == "tubelet train, temporal on camera-motion 1.2.0"
    assert "3 epochs" in (entry.folder / "CARD.md").read_text()
    answer = CliRunner().invoke(
        app, ["classify", str(clips / "pans" / "0.mp4"), "--model", "moves", "--json"]
    )
    assert {each["label"] for each in json.loads(answer.stdout)["labels"]} == {"pans", "stands"}

    # What was started with something else is not resumed; a finished training is not, either.
    again = train(clips, "--name", "moves", "--level", "temporal", "--resume", "--replace")
    assert again.exit_code == 1
    assert "is finished: leave out --resume" in again.stderr


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(clips: Path, store: Path, tmp_path: Path) -> None:
    options = ("--level", "temporal", "--epochs", "40", "--from", "camera-motion")
    report(train(clips, "--name", "whole", *options, "--json"))
    out = tmp_path / "run"
    command = [TUBELET, "train", str(clips), "--name", "part", *options, "--out", str(out)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "last.pt").exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert not (store / "part").exists()

    anew = train(clips, "--name", "part", *options, "--out", out)
    assert anew.exit_code == 1
    assert "has an unfinished training: give --resume to go on with it" in anew.stderr
    other = train(clips, "--name", "part", *options[:-1], "whole", "--out", out, "--resume")
    assert other.exit_code == 1
    assert "was started with base camera-motion 1.2.0" in other.stderr

    resumed = train(clips, "--name", "part", *options, "--out", out, "--resume", "--json")
    assert "resumed after" in resumed.stderr
    report(resumed)
    assert_same_weights(store, "whole", "part")


@pytest.mark.parametrize(
    ("ends_s", "epochs", "progress", "says"),
    [
        (1.0, 30, Progress(epoch=1), ("the time was enough for one epoch alone",)),
        (1.0, 30, Progress(epoch=2), ()),
        (None, 30, Progress(epoch=1), ()),
        (1.0, 1, Progress(epoch=1), ()),
        (
            1.0,
            30,
            Progress(epoch=1, diverged="the loss is not finite"),
            ("the loss is not finite: training",),
        ),
    ],
)
def test_what_is_suspicious(
    ends_s: float | None, epochs: int, progress: Progress, says: tuple[str, ...]
) -> None:
    run = Run("temporal", Path("run"), epochs, 15, ends_s, is_mirrored=True, is_resumed=False)
    said = run_warnings(run, progress, 2, is_multilabel=False)
    assert len(said) == len(says)
    assert all(each.startswith(start) for each, start in zip(said, says, strict=True))


def test_an_epoch_without_a_finite_loss_is_json() -> None:
    figures = EpochFigures(1, 0.5, 0.5, float("nan"), 0.5, 9.0)
    assert json.dumps(epoch_json(figures, "accuracy"), allow_nan=False).count("null") == 1


def test_ctrl_c_keeps_what_was_done(clips: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [TUBELET, "train", str(clips), "--name", "m", "--level", "temporal", "--epochs", "100000"]
    process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True)
    while not (out / "last.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    second = train(clips, "--name", "m", "--level", "temporal")
    assert second.exit_code == 1
    assert "m 1 is being trained by another process" in second.stderr
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command with --resume goes on" in said
    kept = json.loads((out / "costs.json").read_text())  # to which a resumed run adds
    assert kept["training"]["processor_s"] > 0
    assert not store.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--level", "temporal", "--from", "camera-motion-stack"), "the level temporal needs an image model"),
        (("--level", "temporal", "--resume"), "to resume: leave out --resume, or give its --out"),
        (("--level", "probe", "--epochs", "3"), "--level probe has no epochs"),
    ],
)
def test_what_does_not_fit_is_said(clips: Path, store: Path, arguments: tuple[str, ...], says: str) -> None:
    done = train(clips, "--name", "m", *arguments)
    assert done.exit_code == 1
    assert says in done.stderr


def test_a_folder_of_other_files_is_left_alone(clips: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    done = train(clips, "--name", "m", "--level", "temporal", "--out", tmp_path / "mine")
    assert done.exit_code == 1
    assert "has files that are no training's: give another --out" in done.stderr
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
