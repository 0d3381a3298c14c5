"""Resampling in RGB, equal to that of the libraries that checkpoints were trained with.

H W of the source picture, h w of the result.
"""

import numpy as np
from PIL import Image

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resample(
    pixels: np.ndarray, size: tuple[int, int], crop: tuple[int, int, int, int], filter_name: str
) -> np.ndarray:
    """Resize ``pixels`` to ``size`` (height, width) and return its ``crop`` (top, left, h, w).

    (H, W, 3) uint8 -> (h, w, 3) uint8. Only the crop is computed. Pillow's filters are antialiased, except
    ``nearest``; ``bilinear_aliased`` is torchvision's resize with ``antialias=False``. Pixels outside the
    picture are black.
    """
    (height, width), (top, left, rows, columns) = pixels.shape[:2], crop
    if top < 0 or left < 0:
        inside = max(top, 0), max(left, 0), min(rows, size[0]), min(columns, size[1])
        padded = np.zeros((rows, columns, 3), np.uint8)
        y, x = max(-top, 0), max(-left, 0)
        padded[y : y + inside[2], x : x + inside[3]] = resample(pixels, size, inside, filter_name)
        return padded
    y, x = height / size[0], width / size[1]  # source pixels per pixel of the result
    if filter_name == "bilinear_aliased":
        return _resize_bilinear_aliased(
            pixels, (np.arange(top, top + rows), y), (np.arange(left, left + columns), x)
        )
    if filter_name == "nearest":
        # The pixel that a centre lies in, in integers: Pillow's sums are wrong if a centre lies on an edge.
        lines = (2 * np.arange(top, top + rows) + 1) * height // (2 * size[0])
        return pixels[lines][:, (2 * np.arange(left, left + columns) + 1) * width // (2 * size[1])]
    box = (left * x, top * y, min((left + columns) * x, width), min((top + rows) * y, height))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize((columns, rows), _FILTERS[filter_name], box=box))


def preload() -> None:
    """Make Pillow import what it imports at first use, before the process may no longer open files."""
    resample(np.zeros((2, 2, 3), np.uint8), (1, 1), (0, 0, 1, 1), "bilinear")


def _resize_bilinear_aliased(
    pixels: np.ndarray, rows: tuple[np.ndarray, float], columns: tuple[np.ndarray, float]
) -> np.ndarray:
    """Interpolate each pixel from the four around its centre; edge pixels repeat outside."""
    above, below, down = _neighbours(*rows, pixels.shape[0])
    before, after, across = _neighbours(*columns, pixels.shape[1])
    lines = pixels[above] + down[:, None, None] * (pixels[below].astype(np.float32) - pixels[above])
    result = lines[:, before] + across[:, None] * (lines[:, after] - lines[:, before])
    return np.rint(result).astype(np.uint8)


def _neighbours(wanted: np.ndarray, scale: float, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two source pixels around each wanted one, and its relative distance from the first."""
    middles = np.maximum((wanted + 0.5) * scale - 0.5, 0)
    first = np.minimum(middles.astype(int), length - 1)
    return first, np.minimum(first + 1, length - 1), (middles - first).astype(np.float32)
