"""Whether a richer model is better: by the standard error over scenes, where there are several."""

import json

import pytest
import torch

from tubelet.models.training.loss_comparison import compare_losses

SIMPLER, RICHER = torch.tensor([1.0, 0.9, 0.8, 0.5]), torch.tensor([0.4, 0.5, 0.3, 0.2])


def test_the_windows_of_a_scene_count_together() -> None:
    found = compare_losses(SIMPLER, RICHER, torch.tensor([0, 0, 1, 1]))
    sums = torch.tensor([1.0, 0.8])
    assert found.standard_error == pytest.approx(float(sums.std() * 2**0.5 / 4))
    assert found.is_gain
    assert "B is taken, not A" in found.sentence("A", "B", "here")


@pytest.mark.filterwarnings("error")
def test_of_one_scene_nothing_is_known_of_chance() -> None:
    found = compare_losses(SIMPLER, RICHER, torch.zeros(4, dtype=torch.int64))
    assert not found.is_gain
    assert found.sentence("A", "B", "here").endswith(
        "one scene, so that the difference of 0.450 may be chance"
    )
    assert json.loads(json.dumps(found.json("A", "B"), allow_nan=False))["standard_error"] is None
