"""The accuracy by the share of the clips: nested shares, the whole's accuracy, and what is too little."""

from itertools import pairwise

import numpy as np
import torch

from tubelet.models.training.probe_fit import ProbeData, estimate, mean_by_clip
from tubelet.service.cli.train.learning_curve import SHARES, first_clips, learning_curve
from tubelet.service.cli.train.report.curves_page import share_chart


def data(clips: int) -> tuple[ProbeData, np.ndarray]:
    """Clips of two windows and of two labels that vectors tell apart in part; scenes of two clips."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(clips) % 2
    vectors = torch.randn(clips, 6, generator=generator)
    vectors[:, 0] += 1.5 * labels
    scenes = np.arange(clips) // 2
    twice = torch.arange(clips).repeat_interleave(2)
    folds = torch.from_numpy(scenes % 5)
    return ProbeData({"mean": vectors[twice]}, labels[twice], twice, folds[twice], 2), scenes


def test_the_last_point_is_the_accuracy_of_all_clips() -> None:
    given, scenes = data(80)
    curve = learning_curve(given, scenes)
    assert [point.share for point in curve] == list(SHARES)
    assert [point.clips for point in curve] == [16, 32, 48, 64]  # of 80, of which a fifth is left out
    means, numbers = mean_by_clip(estimate(given)[0], given.clips)
    assert curve[-1].value == (means.argmax(dim=1) == numbers % 2).float().mean().item()
    assert curve[-1].value > 0.7
    assert all(point.interval[0] < point.value < point.interval[1] for point in curve)
    chart = share_chart(curve)
    assert chart is not None
    assert [round(dot["x"]) for dot in chart["dots"]] == [75, 150, 225, 300]


def test_a_larger_share_has_all_clips_of_a_smaller_one() -> None:
    given, scenes = data(40)
    masks = [first_clips(given, scenes, share) for share in SHARES]
    for smaller, larger in pairwise(masks):
        assert not (smaller & ~larger).any()
        assert larger.sum() > smaller.sum()
    assert masks[-1].all()
    for label in (0, 1):
        assert len(given.clips[masks[0] & (given.labels == label)].unique()) == 5


def test_a_share_that_is_too_small_is_left_out() -> None:
    given, scenes = data(8)
    assert [point.share for point in learning_curve(given, scenes)][-1] == 1.0
    assert len(learning_curve(given, scenes)) < len(SHARES)
    assert share_chart(()) is None
