"""Shares become maps that sum to 1 with what is on no patch."""

import pytest
import torch

from tubelet.models.explain.explanation import Explanation, Mass, Question, scaled


def test_what_is_on_no_patch_is_a_share_of_everything() -> None:
    patches = torch.tensor([[[1.0, 2.0], [0.0, 3.3]]], dtype=torch.float64)
    shares, on_no_patch = scaled(Mass(patches, 3.7))
    torch.testing.assert_close(shares, torch.tensor([[[0.1, 0.2], [0.0, 0.33]]]))
    assert on_no_patch == pytest.approx(0.37)
    shown = repr(Explanation(Question("rollout"), shares, on_no_patch))
    assert shown.endswith(", map 1 x 2 x 2, 37% on no patch)")


def test_all_of_nothing_is_on_no_patch() -> None:
    shares, on_no_patch = scaled(Mass(torch.zeros(2, 3, 4, dtype=torch.float64), 0.0))
    assert shares.shape == (2, 3, 4)
    assert shares.count_nonzero() == 0
    assert on_no_patch == 1
