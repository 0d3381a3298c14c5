"""Small models from random weights: their batch norms soon have the statistics of what they see."""

import copy

import torch
from torch import nn

from tubelet.models.training.small_models import average_first_statistics_


def test_batch_norms_average_their_first_batches_then_move() -> None:
    torch.manual_seed(0)
    batches = [5 + 3 * torch.randn(64, 2) for _ in range(30)]
    first, moving = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    average_first_statistics_(first)
    for number, batch in enumerate(batches):
        first(batch)
        moving(batch)
        if number < 10:
            seen = torch.stack([each.mean(dim=0) for each in batches[: number + 1]])
            torch.testing.assert_close(first.running_mean, seen.mean(dim=0))
            variances = torch.stack([each.var(dim=0) for each in batches[: number + 1]])
            torch.testing.assert_close(first.running_var, variances.mean(dim=0))
        if number == 9:
            moving.load_state_dict(first.state_dict())  # from here on, both move alike
    torch.testing.assert_close(first.running_mean, moving.running_mean)
    torch.testing.assert_close(first.running_var, moving.running_var)


def test_a_copy_goes_on_from_its_own_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    average_first_statistics_(model)
    model(torch.randn(8, 2))
    other = copy.deepcopy(model)
    other.load_state_dict(model.state_dict())
    batch = torch.randn(8, 2)
    model(batch)
    other(batch)
    assert all(torch.equal(one, two) for one, two in zip(model.buffers(), other.buffers(), strict=True))
    other.eval()(batch)
    assert other[0].num_batches_tracked == 2
