"""Augmentation: one change for all frames of a window, and labels that a mirror would make wrong."""

import numpy as np
import pytest
import torch

from tubelet.models.training.augmentation import (
    Augmentation,
    augment,
    labels_with_direction,
    make_targets,
    mix_,
)
from tubelet.models.training.samples import Batch


@pytest.mark.parametrize(
    ("label", "has_direction"),
    [
        ("pan_left", True),
        ("roll_ccw", True),
        ("turnRight", True),
        ("Forehand Drive", True),
        ("moving clockwise", True),
        ("fight", False),
        ("copyright", False),
        ("cleft", False),
        ("noFight", False),
    ],
)
def test_labels_that_name_a_direction(label: str, has_direction: bool) -> None:
    assert labels_with_direction([label]) == ([label] if has_direction else [])


def test_all_frames_of_a_window_change_alike() -> None:
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 1, 40, 40, 3), np.uint8))
    window = frame.expand(3, 2, -1, -1, -1)
    changed = [augment(window, Augmentation(), seed) for seed in range(8)]
    for each in changed:
        assert each.shape == window.shape
        assert each.dtype == torch.uint8
        assert torch.equal(each, each[:1, :1].expand_as(each))
    assert len({each.sum().item() for each in changed}) > 4
    assert torch.equal(changed[3], augment(window, Augmentation(), 3))


def test_a_mirror_that_is_off_never_mirrors() -> None:
    window = torch.arange(8, dtype=torch.uint8).repeat(1, 1, 8, 1)[..., None].repeat(1, 1, 1, 1, 3)
    window = window.reshape(1, 1, 8, 8, 3)
    plain = Augmentation(mirror=False, rand_augment=False, erase=False)
    mirrored = Augmentation(mirror=True, rand_augment=False, erase=False)
    assert all(torch.equal(augment(window, plain, seed), window) for seed in range(20))
    found = [torch.equal(augment(window, mirrored, seed), window.flip(3)) for seed in range(20)]
    assert any(found)
    assert not all(found)


def test_mixed_windows_have_mixed_targets() -> None:
    labels, weights = torch.tensor([0, 1, 1]), torch.tensor([1.5, 0.75])
    targets = make_targets(labels, weights)
    assert torch.allclose(targets.sum(dim=1), weights.float()[labels])
    units = torch.tensor([[0.0], [1.0], [5.0]])
    mixed = mix_(Batch(units, labels, targets=targets), seed=4)
    share = 1 - mixed.units[0, 0]
    assert 0.5 <= share < 1
    assert mixed.units[1, 0] == pytest.approx(share)
    assert mixed.targets is not None
    assert torch.allclose(mixed.targets[0], share * targets[0] + (1 - share) * targets[1])
    assert torch.equal(mixed.units[2], units[2]), "the third has no partner"
    assert torch.equal(mixed.targets[2], targets[2])


def test_pixels_are_mixed_as_numbers_are() -> None:
    rng = np.random.default_rng(0)
    units = torch.from_numpy(rng.integers(0, 256, (4, 2, 1, 6, 6, 3), np.uint8))
    labels = torch.arange(4) % 2
    targets = make_targets(labels, torch.ones(2))
    for seed in range(6):
        mixed = mix_(Batch(units.clone(), labels, targets=targets), seed).units
        wanted = mix_(Batch(units.float(), labels, targets=targets), seed).units
        assert mixed.dtype == torch.uint8
        assert (mixed.float() - wanted).abs().max() < 2
