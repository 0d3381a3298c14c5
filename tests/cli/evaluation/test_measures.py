"""The measures of an evaluation, compared with those of scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score

from tubelet.service.cli.evaluation.measures import (
    BINS,
    average_precision,
    calibration,
    difference_interval,
    grouped_calibration_error,
    mcnemar_p,
    wilson_interval,
)


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 40), (3, 7), (50, 100), (9_999, 10_000)])
def test_wilson_interval_is_scipys(right: int, total: int) -> None:
    low, high = binomtest(right, total).proportion_ci(method="wilson")
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=1e-9)


def predictions(videos: int, overconfidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and whether they are right, as of a model whose scores are too high."""
    random = np.random.default_rng(videos)
    scores = random.beta(4, 1.5, videos)
    return scores, random.random(videos) < scores - overconfidence


@pytest.mark.parametrize("videos", [1, 20, 3000])
def test_calibration_curve_is_sklearns(videos: int) -> None:
    scores, is_right = predictions(videos, 0.1)
    found = calibration(scores, is_right)
    accuracies, mean_scores = calibration_curve(is_right, scores, n_bins=BINS)
    filled = found.counts > 0
    assert found.accuracies[filled] == pytest.approx(accuracies)
    assert found.scores[filled] == pytest.approx(mean_scores)
    assert np.isnan(found.accuracies[~filled]).all()
    assert found.counts.sum() == videos
    assert found.ece == pytest.approx(
        np.average(np.abs(accuracies - mean_scores), weights=found.counts[filled])
    )


def test_scores_on_the_edge_of_a_bin_belong_to_the_lower_one() -> None:
    found = calibration(np.array([0.0, 1 / BINS, 1.0]), np.array([False, False, True]))
    assert found.counts.tolist() == [2, *[0] * (BINS - 2), 1]


def test_ece_interval_is_scipys_basic_bootstrap() -> None:
    scores, is_right = predictions(1000, 0.1)
    found = calibration(scores, is_right)

    def ece(chosen: np.ndarray) -> float:
        accuracies, means = calibration_curve(is_right[chosen], scores[chosen], n_bins=BINS)
        counts, _ = np.histogram(scores[chosen], np.linspace(0, 1, BINS + 1))
        return float(np.average(np.abs(accuracies - means), weights=counts[counts > 0]))

    judged = bootstrap((np.arange(1000),), ece, method="basic", vectorized=False, n_resamples=400, rng=1)
    assert found.ece_interval == pytest.approx(tuple(judged.confidence_interval), abs=0.01)


def test_ece_interval_covers_the_true_error() -> None:
    inside = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        scores = random.beta(4, 1.5, 1000)
        low, high = calibration(scores, random.random(1000) < np.maximum(scores - 0.1, 0)).ece_interval
        inside += low <= 0.1 <= high
    assert inside >= 32  # 90 of 100 in a longer simulation; 32 of 40 would be 3 standard deviations less


def test_the_interval_over_groups_is_scipys_basic_bootstrap_over_groups() -> None:
    scores, is_right = predictions(300, 0.1)
    groups = np.arange(300) // 3 * 7
    ece, interval = grouped_calibration_error(scores, is_right, groups)
    assert ece == pytest.approx(calibration(scores, is_right).ece)

    def error(chosen: np.ndarray) -> float:
        rows = (3 * chosen[:, None] + np.arange(3)).ravel()
        return calibration(scores[rows], is_right[rows]).ece

    judged = bootstrap((np.arange(100),), error, method="basic", vectorized=False, n_resamples=200, rng=1)
    assert interval == pytest.approx(tuple(judged.confidence_interval), abs=0.02)


def test_windows_that_repeat_their_clip_make_its_interval_no_narrower() -> None:
    scores, is_right = predictions(200, 0.1)
    _, clips = grouped_calibration_error(scores, is_right, np.arange(200))
    _, windows = grouped_calibration_error(scores.repeat(9), is_right.repeat(9), np.arange(200).repeat(9))
    assert windows == pytest.approx(clips)


@pytest.mark.parametrize("overconfidence", [0.0, 0.2])
def test_error_of_exact_scores_is_within_chance(overconfidence: float) -> None:
    found = calibration(*predictions(2000, overconfidence))
    assert (found.ece > found.ece_if_calibrated) == (overconfidence > 0)
    # Chance alone gives about the mean distance of a binomial share from its probability, in each bin.
    assert 0.01 < found.ece_if_calibrated < 0.05


@pytest.mark.parametrize(("digits", "videos"), [(1, 30), (2, 500), (9, 500)])
def test_average_precision_is_sklearns(digits: int, videos: int) -> None:
    random = np.random.default_rng(digits)
    scores = random.random(videos).round(digits)  # few digits give equal scores
    is_positive = random.random(videos) < scores / 2
    assert average_precision(scores, is_positive) == pytest.approx(
        average_precision_score(is_positive, scores)
    )


@pytest.mark.parametrize(("gained", "lost", "total"), [(0, 0, 5), (1, 0, 3), (30, 12, 200), (300, 310, 2000)])
def test_difference_interval_is_scipys(gained: int, lost: int, total: int) -> None:
    second = np.array([1] * gained + [0] * (total - gained))
    first = np.array([0] * gained + [1] * lost + [0] * (total - gained - lost))
    found = difference_interval(gained, lost, total)
    if gained == lost == 0:
        assert found == (0, 0)
        return
    judged = bootstrap(
        (second, first),
        lambda b, a, axis: np.mean(b, axis) - np.mean(a, axis),
        paired=True,
        method="percentile",
        rng=1,
    )
    assert found == pytest.approx(tuple(judged.confidence_interval), abs=2.5 / total)


@pytest.mark.parametrize(
    ("gained", "lost"), [(0, 0), (1, 0), (0, 6), (5, 5), (3, 17), (40, 4), (2000, 2200), (9000, 9000)]
)
def test_mcnemar_test_is_scipys_exact_binomial_test(gained: int, lost: int) -> None:
    judged = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar_p(gained, lost) == pytest.approx(judged)
