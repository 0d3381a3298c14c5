"""Maps of clips, what they are compared with, and the comparisons.

T frames in a clip, H W C pixels, U steps in a map; a map is (U, rows, columns), at least 0, with a sum of 1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

CENTRE_SIGMA = 0.25  # of the centre prior, sides of the picture
RANDOM_SAMPLES = 2000  # bootstrap
Map = NDArray[np.float64]
Truth = NDArray[np.bool_]
Grid = tuple[int, int, int]  # steps, rows, columns


def motion_energy(frames: Tensor, grid: Grid) -> Map:
    """Return the absolute differences of neighbouring frames by step and patch: (T, H, W, C) -> Map."""
    pixels = frames.numpy().astype(np.float64)
    changes = np.zeros(pixels.shape[:3])
    difference = np.abs(np.diff(pixels, axis=0)).mean(axis=3)
    changes[1:] += difference / 2
    changes[:-1] += difference / 2
    steps, rows, columns = grid
    sizes = (size // parts for size, parts in zip(changes.shape, grid, strict=True))
    t, height, width = sizes
    energy = changes.reshape(steps, t, rows, height, columns, width).mean(axis=(1, 3, 5))
    return energy / energy.sum() if energy.any() else np.full(grid, 1 / energy.size)


def centre_prior(grid: Grid, *, in_time: bool = False) -> Map:
    """Return a Gaussian around the middle of the picture, and of the window if ``in_time``."""
    bells = [np.exp(-((((np.arange(size) + 0.5) / size - 0.5) / CENTRE_SIGMA) ** 2) / 2) for size in grid]
    if not in_time:
        bells[0] = np.ones(grid[0])
    prior = np.einsum("u,r,c->urc", *bells)
    return prior / prior.sum()


def baselines(frames: Tensor, grid: Grid, seed: int) -> dict[str, Map]:
    """Return maps that know nothing of a model, which explanations have to beat."""
    noise = np.random.default_rng(seed).random(grid)
    return {
        "motion energy": motion_energy(frames, grid),
        "centre prior": centre_prior(grid),
        "random": noise / noise.sum(),
    }


def mass(values: Map, truth: Truth) -> float:
    """Return the share of a map in the right place and time; chance, if the map is zero."""
    total = values.sum()
    return float(values[truth].sum() / total) if total > 0 else float(truth.mean())


def time_mass(values: Map, truth: Truth) -> float:
    """Return the share of a map in the right time, wherever."""
    return mass(values, np.broadcast_to(truth.any(axis=(1, 2), keepdims=True), truth.shape))


def place_mass(values: Map, truth: Truth) -> float:
    """Return the share of a map in the right place, whenever."""
    return mass(values, np.broadcast_to(truth.any(axis=0, keepdims=True), truth.shape))


def pointing(values: Map, truth: Truth) -> float:
    """Return whether the largest value is in the right place and time; of several, the share that is."""
    return float(truth[values == values.max()].mean())


def correlation(one: Map, other: Map) -> float:
    """Return Spearman's correlation of two maps; 0 if one of them is the same everywhere."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def ranks(values: Map) -> NDArray[np.float64]:
    """Return the ranks of values, from 1; equal values share the mean of theirs."""
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[number.ravel()]


def interval(values: Sequence[float] | NDArray[np.float64]) -> str:
    """Return a mean with its 95 % interval, by bootstrap over clips."""
    samples = np.random.default_rng(0).choice(values, (RANDOM_SAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(samples, (2.5, 97.5))
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"
