"""Statistical measures of predictions: intervals, calibration and average precision, as pure functions.

n videos, M bins. Intervals have a level of 95 %. Random numbers have a fixed seed: the same data give the
same figures.
"""

from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
BINS = 15  # of a calibration curve, as in arXiv 1706.04599
RESAMPLES = 1000

_TAILS = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2)
_SEED = 0

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The accuracy of predictions by their score: each bin's videos, mean score and accuracy.

    The bins are equally wide: the m-th holds scores in ((m - 1) / M, m / M]. Empty bins have NaN as their
    score and accuracy. ``ece`` is the expected calibration error.
    """

    counts: np.ndarray = field(repr=False)  # (M,) int
    scores: np.ndarray = field(repr=False)  # (M,)
    accuracies: np.ndarray = field(repr=False)  # (M,)
    ece: float
    ece_interval: Interval
    ece_if_calibrated: float  # the 95 % quantile of what calibrated scores show with as few videos


def wilson_interval(successes: int, trials: int) -> Interval:
    """Return Wilson's score interval of a share; ``trials`` must be at least 1.

    Unlike the normal approximation, it holds for few trials, and for shares near 0 and 1 (Wilson 1927; Brown,
    Cai and DasGupta 2001).
    """
    z2 = NormalDist().inv_cdf(_TAILS[1]) ** 2
    share = successes / trials
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = sqrt(z2 * (share * (1 - share) + z2 / (4 * trials)) / trials) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def calibration(scores: np.ndarray, is_right: np.ndarray) -> Calibration:
    """Compare the scores of the best labels, (n,), with whether they are right, (n,) bool.

    The error is Guo et al.'s (arXiv 1706.04599): the mean over videos of the distance between the accuracy
    and the mean score in their bin. Few videos make it too large, and resampling makes it larger again. So
    its interval is the basic bootstrap interval, which subtracts that bias; it may lie below the error.
    ``ece_if_calibrated`` draws the answers at random, as often right as their scores say (consistency
    resampling, Bröcker and Smith 2007).
    """
    bins = _bins(scores)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean_scores = np.bincount(bins, scores, BINS) / counts
        accuracies = np.bincount(bins, is_right, BINS) / counts
    gaps = is_right - scores
    ece = _ece(bins, gaps)
    random = np.random.default_rng(_SEED)
    resampled, calibrated = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        chosen = random.integers(0, len(gaps), len(gaps))
        resampled[number] = _ece(bins[chosen], gaps[chosen])
        calibrated[number] = _ece(bins, (random.random(len(gaps)) < scores) - scores)
    lower, upper = np.quantile(resampled, _TAILS)
    interval = _basic_interval(ece, float(lower), float(upper))
    return Calibration(counts, mean_scores, accuracies, ece, interval, float(np.quantile(calibrated, LEVEL)))


def calibration_error(scores: np.ndarray, is_right: np.ndarray) -> float:
    """Return the error that ``calibration`` has, alone."""
    return _ece(_bins(scores), is_right - scores)


def grouped_calibration_error(
    scores: np.ndarray, is_right: np.ndarray, groups: np.ndarray
) -> tuple[float, Interval]:
    """Return the expected calibration error of scores, (n,), and its basic bootstrap interval over groups.

    ``groups`` (n,) has the group of each score, such as the clip of a window: groups are resampled as a
    whole, since the answers of one group are not independent of each other.
    """
    bins = _bins(scores)
    _, own = np.unique(groups, return_inverse=True)
    sizes = np.bincount(own)
    gaps = np.zeros((len(sizes), BINS))  # the sum of a group's distances in each bin
    np.add.at(gaps, (own, bins), is_right - scores)
    ece = float(np.abs(gaps.sum(axis=0)).sum() / len(scores))
    random = np.random.default_rng(_SEED)
    drawn = random.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), RESAMPLES)
    resampled = np.abs(drawn @ gaps).sum(axis=1) / (drawn @ sizes)
    lower, upper = np.quantile(resampled, _TAILS)
    return ece, _basic_interval(ece, float(lower), float(upper))


def average_precision(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Return the average precision of a class's scores, (n,), on videos that have it, (n,) bool, or not.

    It is the mean precision at each positive video, in the order of falling scores, without interpolation;
    equal scores count as one step. At least one video must be positive.
    """
    order = np.argsort(-scores, kind="stable")
    is_last = np.diff(scores[order], append=-np.inf) != 0  # of the videos with an equal score
    found = np.cumsum(is_positive[order])[is_last]
    precisions = found / (np.flatnonzero(is_last) + 1)
    return float(np.sum(np.diff(found, prepend=0) * precisions) / found[-1])


def difference_interval(gained: int, lost: int, total: int) -> Interval:
    """Return the bootstrap interval of a difference in accuracy on the same ``total`` videos.

    ``gained`` and ``lost`` count the videos that only the second, or only the first of two models has right.
    To resample videos is to draw these counts from a multinomial distribution. The interval is between the
    percentiles.
    """
    shares = (gained / total, lost / total, (total - gained - lost) / total)
    drawn = np.random.default_rng(_SEED).multinomial(total, shares, 10 * RESAMPLES)
    lower, upper = np.quantile((drawn[:, 0] - drawn[:, 1]) / total, _TAILS)
    return float(lower), float(upper)


def mcnemar_p(gained: int, lost: int) -> float:
    """Return the p-value of McNemar's exact test, two-sided, of a difference on the same videos.

    If two models are equally good, a video that only one has right is as often the first one's as the second
    one's (McNemar 1947). With few such videos, the bootstrap interval is too narrow, and this test is not.
    """
    trials, fewer = gained + lost, min(gained, lost)
    term = tail = 1  # binomial coefficients, and their sum up to ``fewer``
    for number in range(fewer):
        term = term * (trials - number) // (number + 1)
        tail += term
    return min(1.0, 2 * tail / 2**trials)


def _basic_interval(error: float, lower: float, upper: float) -> Interval:
    """Return the basic bootstrap interval of a calibration error, whose resampled quantiles are given."""
    return max(0.0, 2 * error - upper), min(1.0, max(0.0, 2 * error - lower))


def _bins(scores: np.ndarray) -> np.ndarray:
    """Return the number of each score's bin."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], scores)


def _ece(bins: np.ndarray, gaps: np.ndarray) -> float:
    """Return the expected calibration error of the distances between right (1) or wrong (0) and score."""
    return float(np.abs(np.bincount(bins, gaps, BINS)).sum() / len(gaps))
