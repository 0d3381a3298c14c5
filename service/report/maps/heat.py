"""Maps as colours over a picture: the scales of colour, and the drawing.

H W pixels of a picture, R C rows and columns of a map. A map is bytes: of shares, 0 is none and 255 the most
of the whole video; of a difference of two labels, 128 is none, 255 the most for the first, 1 for the second.
"""

from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np

from tubelet.service.types.video import Rectangle

Scale = Literal["shares", "difference"]
NO_DIFFERENCE = 128
_FULL_SCALE = 99.5  # percentile of the patches that has the last colour; those above it have it, too
_LEAST_FULL_SCALE = 3.0  # even shares: a map that is nearly even everywhere has no strong colours
# From low to high. The two sides of a difference are told apart with any kind of colour blindness.
_SHARES = ("#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")
_FIRST, _SECOND = ("#d95f02", "#ff9a1f", "#ffd166"), ("#1f6fd0", "#34a5f5", "#8fe3ff")
GREYNESS = 0.8
"""How far the colours of a picture are taken back below a map; the stylesheet of pages has the same."""
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # of ITU-R BT.709
_SOLID_AT = 0.35  # of the scale: from here on, colours are as opaque as they get


@cache
def scale_colours(scale: Scale) -> np.ndarray:
    """Return the colour of each byte of a map: -> (256, 4) uint8, red, green, blue and opacity."""
    if scale == "shares":
        return _ramp(_SHARES, 256)
    first, second = _ramp(_FIRST, 256 - NO_DIFFERENCE), _ramp(_SECOND, NO_DIFFERENCE + 1)
    return np.concatenate((second[:0:-1], first))


def full_scale(values: np.ndarray) -> float:
    """Return the size that has the last colour, of values in multiples of an even share."""
    sizes = np.abs(values)
    most = float(np.percentile(sizes, _FULL_SCALE)) or float(sizes.max()) if sizes.size else 0.0
    return max(most, _LEAST_FULL_SCALE)


def to_bytes(values: np.ndarray, most: float, scale: Scale) -> np.ndarray:
    """Scale values to the bytes of a map; ``most`` is the highest value, of a difference its highest size."""
    values = np.clip(values / most, -1, 1) if most > 0 else np.zeros_like(values)
    if scale == "shares":
        return np.rint(np.maximum(values, 0) * 255).astype(np.uint8)
    return (NO_DIFFERENCE + np.rint(values * 127)).astype(np.uint8)


class Overlay:
    """Draws maps of ``grid`` (rows, columns) over pictures of ``size`` (height, width), at ``rectangle``."""

    def __init__(
        self,
        size: tuple[int, int],
        grid: tuple[int, int],
        rectangle: Rectangle,
        *,
        opacity: float = 0.7,
        smooth: bool = False,
    ) -> None:
        height, width = size
        self._rows = _weights(height, grid[0], (rectangle.top, rectangle.bottom), smooth)
        self._columns = _weights(width, grid[1], (rectangle.left, rectangle.right), smooth)
        self._opacity = opacity

    def layer(self, patches: np.ndarray, scale: Scale) -> np.ndarray:
        """Return the layer for the bytes of a map (R, C), to be mixed with pictures: -> (H, W, 4) float32."""
        return self.layer_of(scale_colours(scale)[patches])

    def layer_of(self, colours: np.ndarray) -> np.ndarray:
        """Return the layer for ``colours`` (R, C, 4): -> (H, W, 4) float32, premultiplied."""
        opaque = colours[..., 3:] * np.float32(self._opacity / 255)
        layer = np.concatenate((colours[..., :3] * opaque, opaque), axis=2)
        layer = np.einsum("hr,rcx->hcx", self._rows, layer)
        return np.einsum("wc,hcx->hwx", self._columns, layer)


def mixed(picture: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Return ``picture`` (H, W, 3) uint8, nearly grey so that the map stands out, with a layer over it."""
    grey = (picture @ _LUMA)[..., None]
    faint = picture + np.float32(GREYNESS) * (grey - picture)
    return np.rint(faint * (1 - layer[..., 3:]) + layer[..., :3]).astype(np.uint8)


def _weights(pixels: int, cells: int, span: tuple[float, float], smooth: bool) -> np.ndarray:
    """Return how much each pixel along a side takes of each cell: (pixels, cells) float32.

    A pixel outside the ``span`` of the cells takes nothing.
    """
    start, end = span
    at = ((np.arange(pixels) + 0.5) / pixels - start) / (end - start) * cells  # in cells
    weights = np.zeros((pixels, cells), np.float32)
    inside = (at >= 0) & (at < cells)
    if not smooth:
        weights[inside, at[inside].astype(int)] = 1
        return weights
    middle = np.clip(at - 0.5, 0, cells - 1)
    low = np.minimum(middle.astype(int), cells - 1)
    high = np.minimum(low + 1, cells - 1)
    share = middle - low
    np.add.at(weights, (np.flatnonzero(inside), low[inside]), 1 - share[inside])
    np.add.at(weights, (np.flatnonzero(inside), high[inside]), share[inside])
    return weights


def _ramp(stops: Sequence[str], count: int) -> np.ndarray:
    """Return colours from the first stop to the last, more opaque on the way: (count, 4) uint8."""
    channels = np.array([[int(stop[at : at + 2], 16) for at in (1, 3, 5)] for stop in stops])
    place = np.linspace(0, 1, count)
    colours = [np.interp(place, np.linspace(0, 1, len(stops)), channel) for channel in channels.T]
    return np.rint(np.stack([*colours, 255 * np.minimum(place / _SOLID_AT, 1)], axis=1)).astype(np.uint8)
