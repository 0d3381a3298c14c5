"""Resampling in RGB as the libraries do that checkpoints were trained with.

H W of the picture as it comes, h w of the result.
"""

import numpy as np
from PIL import Image

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resample(
    pixels: np.ndarray, size: tuple[int, int], cut: tuple[int, int, int, int], how: str
) -> np.ndarray:
    """Resize to ``size`` (height, width) and keep ``cut`` (top, left, h, w) of it, which alone is computed.

    (H, W, 3) uint8 -> (h, w, 3) uint8. Pillow's filters are antialiased, but for ``nearest``;
    ``bilinear_aliased`` is torchvision's resize with ``antialias=False``. What lies outside is black.
    """
    (height, width), (top, left, rows, columns) = pixels.shape[:2], cut
    if top < 0 or left < 0:
        inside = max(top, 0), max(left, 0), min(rows, size[0]), min(columns, size[1])
        framed = np.zeros((rows, columns, 3), np.uint8)
        y, x = max(-top, 0), max(-left, 0)
        framed[y : y + inside[2], x : x + inside[3]] = resample(pixels, size, inside, how)
        return framed
    y, x = height / size[0], width / size[1]  # source pixels for one of the result
    if how == "bilinear_aliased":
        return _between_neighbours(
            pixels, (np.arange(top, top + rows), y), (np.arange(left, left + columns), x)
        )
    if how == "nearest":
        # The pixel that a middle lies in, in whole numbers: Pillow's sums go wrong where it lies between two.
        lines = (2 * np.arange(top, top + rows) + 1) * height // (2 * size[0])
        return pixels[lines][:, (2 * np.arange(left, left + columns) + 1) * width // (2 * size[1])]
    box = (left * x, top * y, min((left + columns) * x, width), min((top + rows) * y, height))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize((columns, rows), _FILTERS[how], box=box))


def preload() -> None:
    """Have Pillow import what it imports at first use, before a process may no longer open files."""
    resample(np.zeros((2, 2, 3), np.uint8), (1, 1), (0, 0, 1, 1), "bilinear")


def _between_neighbours(
    pixels: np.ndarray, rows: tuple[np.ndarray, float], columns: tuple[np.ndarray, float]
) -> np.ndarray:
    """Each pixel from the four that surround its middle; the edge goes on outside."""
    above, below, down = _neighbours(*rows, pixels.shape[0])
    before, after, across = _neighbours(*columns, pixels.shape[1])
    lines = pixels[above] + down[:, None, None] * (pixels[below].astype(np.float32) - pixels[above])
    result = lines[:, before] + across[:, None] * (lines[:, after] - lines[:, before])
    return np.rint(result).astype(np.uint8)


def _neighbours(wanted: np.ndarray, scale: float, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two source pixels beside each wanted one, and how far it lies towards the second."""
    middles = np.maximum((wanted + 0.5) * scale - 0.5, 0)
    first = np.minimum(middles.astype(int), length - 1)
    return first, np.minimum(first + 1, length - 1), (middles - first).astype(np.float32)
