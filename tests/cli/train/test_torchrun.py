"""Training in two processes that ``torchrun`` starts: the same model as one process trains, written once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.train.test_levels import assert_same_weights, report, train
from tests.support.cli_process import TUBELET
from tubelet.models.repository.repository import ModelStore

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fp32_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TUBELET_ENGINE__PRECISION", "fp32")


def in_two(*arguments: str | Path) -> list[str]:
    """Return the command that trains in two processes."""
    return [*TORCHRUN, "--no-python", TUBELET, "train", *map(str, arguments)]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("level", ["temporal", "full"])
def test_two_processes_train_what_one_does(clips: Path, store: Path, level: str) -> None:
    options = ("--level", level, "--epochs", "20")  # of one step each: six clips are fewer than a batch
    said = report(train(clips, "--name", "one", *options, "--json"))
    done = run(in_two(clips, "--name", "two", *options))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote two 1 to") == 1, "one process alone reports"
    assert done.stderr.count(f"epoch {said['epochs']} of 20") == 1

    one, two = (ModelStore(store).find(name).load() for name in ("one", "two"))
    sampling = ModelStore(store).find("one").spec.sampling
    side = one.preprocessing.height
    shape = (4, sampling.units_per_window, sampling.frames_per_unit, side, side, 3)
    units = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    with torch.inference_mode():
        assert (one(units) - two(units)).abs().max() < 1e-4


def test_an_interrupted_training_in_two_processes_resumes(clips: Path, store: Path, tmp_path: Path) -> None:
    options, out = ("--level", "full", "--epochs", "3"), tmp_path / "run"
    assert run(in_two(clips, "--name", "whole", *options)).returncode == 0
    command = in_two(clips, "--name", "part", *options, "--out", out)
    begun = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (out / "last.pt").exists() and begun.poll() is None:
        time.sleep(0.01)
    begun.send_signal(signal.SIGINT)
    _, errors = begun.communicate(timeout=60)
    assert errors.count("the same command with --resume goes on") >= 1, errors
    assert not (store / "part").exists()

    done = run([*command, "--resume"])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("resumed after") == 1
    assert_same_weights(store, "whole", "part")


def test_a_process_whose_other_one_fails_says_so_in_a_sentence(
    clips: Path, store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "training.json").write_text('{"finished": true}')
    (out / "best.partial").symlink_to("/dev/full")  # where process 0 alone writes its first checkpoint
    done = run(in_two(clips, "--name", "never", "--level", "full", "--epochs", "1", "--out", out))
    assert done.returncode == 1
    assert "cannot be written; is the disk full?" in done.stderr
    assert "RuntimeError" not in done.stderr
    assert not (store / "never").exists()


def test_a_comparison_is_not_divided(clips: Path, store: Path) -> None:
    done = run(in_two(clips, "--compare", "probe,vit"))
    assert done.returncode == 1
    assert "leave out torchrun" in done.stderr
