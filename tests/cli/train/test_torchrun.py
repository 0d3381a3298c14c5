"""Training in two processes that ``torchrun`` starts: the same model as one process trains."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.train.test_levels import report, train
from tests.support.cli_process import TUBELET
from tubelet.models.repository.repository import ModelStore

pytestmark = pytest.mark.slow


def test_two_processes_train_what_one_does(clips: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TUBELET_ENGINE__PRECISION", "fp32")
    options = ("--level", "temporal", "--epochs", "20")  # of one step each: six clips are fewer than a batch
    report(train(clips, "--name", "one", *options, "--json"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "--no-python", TUBELET, "train", str(clips), "--name", "two", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote two 1 to") == 1, "one process alone reports"

    one, two = (ModelStore(store).find(name).load() for name in ("one", "two"))
    sampling = ModelStore(store).find("one").spec.sampling
    side = one.preprocessing.height
    shape = (4, sampling.units_per_window, sampling.frames_per_unit, side, side, 3)
    units = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    with torch.inference_mode():
        assert (one(units) - two(units)).abs().max() < 1e-4
