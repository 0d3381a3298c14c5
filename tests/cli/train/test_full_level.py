"""``tubelet train --level full``: frames from the decode workers, random weights, exact resuming."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from tests.cli.train.conftest import SCENES
from tests.cli.train.test_levels import assert_same_weights, report, train
from tests.support.cli_process import TUBELET
from tests.support.models import build
from tubelet.models.checkpoints.onnx_export import TOLERANCE
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.spec import Preprocessing, Sampling
from tubelet.models.training.augmentation import Augmentation
from tubelet.models.training.start import trains_in_bf16
from tubelet.service.cli.app import app
from tubelet.service.cli.evaluation.dataset import InvalidDataset
from tubelet.service.cli.train.base import untrained
from tubelet.service.cli.train.data.clips import Clip
from tubelet.service.cli.train.levels.frames import FrameFeed, Reader, frame_logits
from tubelet.service.cli.training.feed import start_decoders
from tubelet.service.config.config import DecodeConfig

PIXELS = Preprocessing(32, 32, "crop", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SAMPLING = Sampling(2, 2, window_s=1.0, stride_s=0.5, min_window_s=0.5, max_window_s=2.0)


pytestmark = pytest.mark.usefixtures("one_thread")


@contextmanager
def feed(clips: Path, *broken: Path) -> Iterator[FrameFeed]:
    videos = [*sorted(clips.glob("*/*.mp4"))[:5], *broken]
    named = [Clip(video.name + video.parent.name, str(video), video.parent.name) for video in videos]
    labels = torch.arange(len(videos)) % 2
    with start_decoders(DecodeConfig(workers=2)) as decoders:
        reader = Reader(SAMPLING, PIXELS, decoders)
        yield FrameFeed(named, labels, torch.ones(2), reader, Augmentation(), 2)


def test_an_epoch_depends_on_its_number_alone(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    with feed(clips, tmp_path / "bad.mp4") as frames:
        first, rest, other = (list(frames.batches(*start)) for start in ((0, 0), (0, 1), (1, 0)))
    assert frames.steps == len(first) == 3
    assert [batch.total for batch in first] == [2, 2, 2]
    assert sum(len(batch.labels) for batch in first) == 5, "the broken one is missing"
    assert all(batch.units.shape[1:] == (2, 2, 32, 32, 3) for batch in first)
    assert [torch.equal(one.units, other.units) for one, other in zip(first[1:], rest, strict=True)] == [
        True
    ] * 2
    assert not all(
        one.units.shape == two.units.shape and torch.equal(one.units, two.units)
        for one, two in zip(first, other, strict=True)
    )


def test_clips_that_can_be_decoded_no_more_end_a_training_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    says = "none of 1 clip to measure on can be decoded any more"
    with feed(tmp_path, tmp_path / "bad.mp4") as frames, pytest.raises(InvalidDataset, match=says):
        frame_logits(build("vit"), frames.reader, frames.training, [0], torch.float32)


def test_all_of_a_model_is_trained_and_serves(clips: Path, store: Path) -> None:
    said = report(train(clips, "--name", "all", "--level", "full", "--epochs", "1", "--json"))
    assert said["level"] == "full"
    assert said["train_clips"] + said["validation_clips"] + said["figures"]["clips"] == 2 * SCENES
    entry = ModelStore(store).find("all")
    assert entry.spec.family == "factorised"
    assert "all of it was trained" in (entry.folder / "CARD.md").read_text()
    if said["best_epoch"]:
        before = ModelStore(ZOO).find("camera-motion").load().state_dict()
        after = entry.load().state_dict()
        assert not torch.equal(before["patch_embed.proj.weight"], after["patch_embed.proj.weight"])


def test_a_training_that_saves_memory_ends_with_the_same_weights(
    clips: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--from", "none", "--family", "factorised", "--epochs", "2", "--json")
    whole = train(clips, "--name", "whole", *options)
    monkeypatch.setattr("tubelet.service.cli.train.levels.full._LARGEST_SHARE", 0)
    saving = train(clips, "--name", "saving", *options)
    assert "are computed twice" not in whole.stderr
    assert "GB are free: blocks keep their inputs alone, and are computed twice" in saving.stderr
    assert_same_weights(store, "whole", "saving")


def test_a_small_model_starts_from_random_weights_and_resumes(
    clips: Path, store: Path, tmp_path: Path
) -> None:
    options = ("--from", "none", "--family", "factorised", "--epochs", "3")
    said = report(train(clips, "--name", "whole", *options, "--json"))
    assert said["base"] == "random weights (family factorised)"
    out = tmp_path / "run"
    process = subprocess.Popen(
        [TUBELET, "train", str(clips), "--name", "part", *options, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / "last.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    report(train(clips, "--name", "part", *options, "--out", out, "--resume", "--json"))
    assert_same_weights(store, "whole", "part")
    assert json.loads((out / "training.json").read_text())["finished"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [
        ("--from", "none", "--family", "torchvision", "--variant", "r3d_18"),
        ("--from", "none", "--family", "r2plus1d"),
        ("--from", "camera-motion", "--level", "full"),
    ],
    ids=lambda start: start[-1],
)
def test_a_model_that_was_killed_twice_in_training_serves(
    clips: Path, store: Path, tmp_path: Path, start: tuple[str, ...]
) -> None:
    out, options = tmp_path / "run", (*start, "--epochs", "3")
    report(train(clips, "--name", "whole", *options, "--json"))
    command = [TUBELET, "train", str(clips), "--name", "part", *options, "--out", str(out)]
    for resume in ((), ("--resume",)):
        written = (out / "last.pt").stat().st_mtime_ns if resume else None
        killed = subprocess.Popen([*command, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while killed.poll() is None and written == _written_ns(out / "last.pt"):
            time.sleep(0.01)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        assert not (store / "part").exists()
    report(train(clips, "--name", "part", *options, "--out", out, "--resume", "--json"))
    assert_same_weights(store, "whole", "part")
    assert (out / "report.html").is_file()

    video = str(clips / "pans" / "0.mp4")
    answer = CliRunner().invoke(app, ["classify", video, "--model", "part", "--json"])
    scores = {each["label"]: each["score"] for each in json.loads(answer.stdout)["labels"]}
    assert scores.keys() == {"pans", "stands"}
    assert sum(scores.values()) == pytest.approx(1, abs=1e-3)
    file = tmp_path / "part.onnx"
    exported = CliRunner().invoke(app, ["models", "export", "part", "--onnx", str(file), "--json"])
    assert json.loads(exported.stdout)["apart"] <= TOLERANCE, exported.stderr


def _written_ns(file: Path) -> int | None:
    """Return when a file was written; None if it is not there."""
    return file.stat().st_mtime_ns if file.exists() else None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", "none"), "give --family"),
        (("--from", "none", "--family", "vit", "--level", "probe"), "trains all of a model"),
        (("--family", "vit"), "give --from none, too"),
        (("--from", "none", "--family", "torchvision", "--variant", "r4d"), "found 'r4d'"),
        (("--from", "none", "--family", "vit", "--variant", "r3d_18"), "--variant names a model of"),
    ],
)
def test_random_weights_need_a_family(
    clips: Path, store: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = train(clips, "--name", "m", *arguments)
    assert done.exit_code == 1
    assert says in " ".join(done.stderr.split())


def test_3d_convolutions_are_not_trained_in_bf16() -> None:
    assert trains_in_bf16(build("factorised"))
    assert trains_in_bf16(build("torchvision, frames"))
    assert not trains_in_bf16(build("torchvision, clips"))
    assert not trains_in_bf16(untrained("r2plus1d", "").build(2))
    assert not trains_in_bf16(nn.Conv3d(1, 1, 1))
