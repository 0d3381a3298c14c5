"""Drop path: branches are left out in training alone, and alike in any number of processes."""

import torch

from tests.support.models import build
from tubelet.models.training.drop_path import drawn_rows, set_drop_path_
from tubelet.models.training.samples import Batch
from tubelet.models.video_model import VideoModel


def train_output(model: VideoModel, units: torch.Tensor, places: tuple[int, ...], step: int) -> torch.Tensor:
    own = list(places)
    part = Batch(units[own], torch.zeros(len(own)), total=len(units), places=places)
    with torch.no_grad(), drawn_rows(step, part):
        return model(part.units)


def test_drop_path_leaves_branches_out_in_training_alone() -> None:
    model = build("factorised").eval()
    units = torch.randint(0, 256, (6, 4, 2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = model(units)
        set_drop_path_(model, 0.9)
        assert torch.equal(model(units), before)
    model.train()
    dropped = train_output(model, units, tuple(range(6)), 0)
    assert not torch.allclose(dropped, before)
    assert not torch.allclose(dropped, train_output(model, units, tuple(range(6)), 1)), "each step draws anew"


def test_a_part_of_a_batch_drops_what_the_whole_does() -> None:
    model = build("factorised").train()
    set_drop_path_(model, 0.5)
    units = torch.randint(0, 256, (6, 4, 2, 32, 32, 3), dtype=torch.uint8)
    whole = train_output(model, units, tuple(range(6)), 7)
    for places in ((0, 1, 4, 5), (2, 3)):
        part = train_output(model, units, places, 7)
        assert torch.allclose(part, whole[list(places)], atol=1e-5)


def test_the_share_of_rows_that_are_left_out_is_the_rate() -> None:
    branch = torch.nn.ModuleDict({"drop_path": torch.nn.Identity()}).train()
    set_drop_path_(branch, 0.3)
    with drawn_rows(0, Batch(torch.zeros(0), torch.zeros(500))):
        found = branch["drop_path"](torch.ones(4000, 2))
    assert abs((found == 0).float().mean() - 0.3) < 0.03
    assert torch.allclose(found.mean(), torch.tensor(1.0), atol=0.05)
