"""Where a map has its mass, in words and numbers: the seconds and the part of the picture with half of it.

U time steps, R rows and C columns of a map.
"""

from dataclasses import dataclass

import numpy as np

from tubelet.service.types.explanation import SegmentMap
from tubelet.service.types.video import Rectangle

HALF = 0.5
_ROUNDING = 1e-6  # of sums of float32
_THIRDS = (  # of the picture, row by row
    *("upper left", "top", "upper right"),
    *("left", "centre", "right"),
    *("lower left", "bottom", "lower right"),
)


@dataclass(frozen=True, slots=True)
class MapSummary:
    """The shortest time with half of a map's mass on patches, and the fewest patches with half of it.

    ``area`` is the share of the seen part of the picture that these patches take. ``place`` names the ninth
    of the whole picture with the most mass, such as "upper left", and ``place_share`` is its share.
    """

    start_ns: int
    end_ns: int
    area: float
    place: str
    place_share: float


def summarise(found: SegmentMap) -> MapSummary | None:
    """Summarise a map; None if it has nothing on patches."""
    mass = found.map.astype(np.float64)
    total = mass.sum()
    if total <= 0:
        return None
    first, last = _shortest_half(mass.sum(axis=(1, 2)) / total)
    patches = mass.sum(axis=0) / total
    falling = np.sort(patches, axis=None)[::-1]
    count = int(np.searchsorted(np.cumsum(falling), HALF - _ROUNDING)) + 1
    ninths = _by_ninth(patches, found.rectangle)
    return MapSummary(
        int(found.start_ns[first]),
        int(found.end_ns[last]),
        count / patches.size,
        _THIRDS[int(ninths.argmax())],
        float(ninths.max()),
    )


def steps_inside(found: SegmentMap) -> np.ndarray:
    """Return which steps of a map lie in its segment, at least in part: (U,) bool.

    Others are there where the model's windows are longer than segments.
    """
    return (found.end_ns > found.segment.start_ns) & (found.start_ns < found.segment.end_ns)


def _by_ninth(patches: np.ndarray, seen: Rectangle) -> np.ndarray:
    """Sum patches by the ninth of the shown picture that their middle is in: (R, C) -> (9,)."""
    rows, columns = patches.shape
    y = seen.top + (np.arange(rows) + 0.5) / rows * (seen.bottom - seen.top)
    x = seen.left + (np.arange(columns) + 0.5) / columns * (seen.right - seen.left)
    row, column = (np.clip((at * 3).astype(int), 0, 2) for at in (y, x))
    ninth = 3 * row[:, None] + column
    return np.bincount(ninth.ravel(), weights=patches.ravel(), minlength=9)


def _shortest_half(shares: np.ndarray) -> tuple[int, int]:
    """Return the first and last of the fewest neighbouring steps with half of the mass: (U,) -> indices."""
    sums = np.concatenate(([0.0], np.cumsum(shares)))
    best, most = (0, len(shares) - 1), 0.0
    for first in range(len(shares)):
        last = int(np.searchsorted(sums, sums[first] + HALF - _ROUNDING)) - 1
        if last >= len(shares):
            break
        length, mass = last - first, sums[last + 1] - sums[first]
        if (length, -mass) < (best[1] - best[0], -most):
            best, most = (first, last), mass
    return best
