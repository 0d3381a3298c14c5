"""Files of state dicts: the parameters are found in what trainers save, and no code in them runs."""

import re
from argparse import Namespace
from collections import OrderedDict, deque
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tubelet.models.checkpoints.foreign_checkpoint import read_tensors
from tubelet.models.checkpoints.importer import read_source
from tubelet.models.checkpoints.state_dict import ATTRIBUTES
from tubelet.models.errors import CannotImport

STATE = {"conv.weight": torch.ones(2, 2), "conv.bias": torch.zeros(2)}
KEYS = ("model_state", "model_state_dict", "net", "state_dict", "model", "module")
OPTIMISER = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        *({key: STATE, "epoch": 3, "optimizer": OPTIMISER} for key in ("model_state", "model_state_dict")),
        *(
            {key: STATE, "optimizer_state_dict": OPTIMISER}
            for key in ("net", "state_dict", "model", "module")
        ),
        {"my_weights": STATE, "best": 0.9},
        {"state_dict": STATE, "ema": STATE},
        {"checkpoint": {"model": STATE}, "model": {"state_dict": STATE}},
        {"model": STATE, "args": Namespace(output_dir=Path("out"), lr=0.1)},  # torchvision's own scripts
        {"net": STATE, "best": np.float64(0.9), "history": np.arange(3), "log": deque([1])},
    ],
)
def test_the_state_dict_is_found(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "saved.pth")
    found = read_tensors(tmp_path / "saved.pth")
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "net.", "module._orig_mod.model."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefixes_of_wrappers_are_removed(tmp_path: Path, prefix: str, suffix: str) -> None:
    file = tmp_path / f"saved{suffix}"
    state = {f"{prefix}{name}": value for name, value in STATE.items()}
    save_file(state, file) if suffix == ".safetensors" else torch.save({"model": state}, file)
    assert read_tensors(file, ATTRIBUTES).keys() == STATE.keys()


def test_the_counter_of_an_averaged_model_is_not_a_parameter(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    torch.save(averaged.state_dict(), tmp_path / "saved.pth")
    assert set(read_tensors(tmp_path / "saved.pth")) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"teacher": STATE, "student": STATE},
            r"several state dicts \(teacher, student\); its keys",
        ),
        ({"epoch": 3, "optimizer": OPTIMISER}, "no state dict; its keys are epoch, optimizer"),
        ({"model": {"a": 1, "b": 2}}, "no state dict under model; its keys are a, b"),
        ({}, "no state dict; its keys are none"),
        ([1, 2], "no state dict, but list"),
        ({str(number): number for number in range(100)}, "no state dict; its keys are 0, 1, .*, 7, ..."),
        (
            nn.Linear(2, 2),
            r"no state dict, but an object; objects of torch.nn.modules.linear.Linear are not read: save",
        ),
        ({"model": nn.Linear(2, 2)}, r"no state dict; its keys are model; objects of torch.*Linear are not"),
    ],
)
def test_a_file_without_state_dict_names_its_keys(tmp_path: Path, content: object, says: str) -> None:
    torch.save(content, tmp_path / "saved.pth")
    with pytest.raises(CannotImport, match=f"{re.escape(str(tmp_path))}/saved.pth holds {says}"):
        read_tensors(tmp_path / "saved.pth")


def test_a_pickle_that_holds_code_is_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"model": _Bomb(canary)}, tmp_path / "mine.pth")
    with pytest.raises(CannotImport, match="cannot be read safely"):
        read_source("torchvision:r3d_18", weights=tmp_path / "mine.pth")
    assert not canary.exists()


class _Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.canary,)
