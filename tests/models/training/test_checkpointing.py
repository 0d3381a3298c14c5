"""Activation checkpointing: the same gradients and statistics, of less memory."""

import pytest
import torch

from tests.support.models import CASES, CLASSES, build, random_units
from tubelet.models.training.checkpointing import checkpoint_blocks_
from tubelet.models.training.drop_path import set_drop_path_
from tubelet.models.training.samples import Batch
from tubelet.models.training.trainer import Recipe, Trainer
from tubelet.models.video_model import VideoModel

WINDOWS = 3
QUICK = ("r2plus1d",)  # which has batch norms


def batch(case: str) -> Batch:
    """Return the same random windows of a case for each call."""
    torch.manual_seed(1)
    t, s, _ = CASES[case]
    units = random_units(WINDOWS * s, t)
    return Batch(units.unflatten(0, (WINDOWS, s)), torch.arange(WINDOWS) % CLASSES)


def trainer(case: str, dtype: torch.dtype = torch.float32) -> Trainer[VideoModel]:
    made = Trainer(build(case), None, Recipe(steps=10, dtype=dtype))
    set_drop_path_(made.model, 0.5)
    return made


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_a_checkpointed_step_is_the_same_and_keeps_less(case: str) -> None:
    whole, saving = trainer(case), trainer(case)
    windows = batch(case)
    checkpoint_blocks_(saving.model)
    assert saving.saved_bytes(windows) < 0.6 * whole.saved_bytes(windows)
    figures = []
    for each in (whole, saving):
        torch.manual_seed(2)  # of dropout
        figures.append(each.train_step(windows))
    assert figures[0] == figures[1]
    gradients = ([each.grad for each in one.model.parameters()] for one in (whole, saving))
    for wanted, found in zip(*gradients, strict=True):
        assert (wanted is None) == (found is None)
        assert wanted is None or found is None or torch.equal(wanted, found)
    for name, wanted in whole.model.state_dict().items():
        assert torch.equal(wanted, saving.model.state_dict()[name]), name
    assert torch.equal(whole.model.eval()(windows.units), saving.model.eval()(windows.units))


def test_measuring_a_step_changes_nothing() -> None:
    measured, windows = trainer("r2plus1d"), batch("r2plus1d")
    before = {name: value.clone() for name, value in measured.model.state_dict().items()}
    random = torch.get_rng_state()
    kept = measured.saved_bytes(windows)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in measured.model.state_dict().items())
    twice = Batch(windows.units.repeat(2, 1, 1, 1, 1, 1), windows.labels.repeat(2))
    assert measured.saved_bytes(twice) == pytest.approx(2 * kept, rel=0.02)
