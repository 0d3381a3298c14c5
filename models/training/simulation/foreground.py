"""Draw what moves before the simulated camera by itself: pieces of other pictures.

T frames in a window, H W pixels (H = W); lengths are in sides of the picture.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from tubelet.models.training.simulation.render import SHRINK, render_view

SWINGS = (0.5, 2.5)  # how often an object goes there and back in a window
SWING_MAX = 0.35  # largest distance of a swing from its middle, sides
CHANGES = (2, 12)  # how often an object in place changes its looks in a window


@dataclass(frozen=True, slots=True)
class Foreground:
    """How much moves before the camera by itself.

    ``object_share`` of the windows have objects, at most ``objects_max``, of a ``radius`` between two bounds.
    ``lively_share`` of the objects do not pass by on a straight line, but swing as limbs do, or stay in place
    and change their looks as clocks do. ``static_movie_share`` of the static windows are over sources with
    moving objects, if it is given.
    """

    object_share: float = 0.35
    objects_max: int = 1
    radius: tuple[float, float] = (0.06, 0.22)
    lively_share: float = 0.0
    static_movie_share: float | None = None


PLAIN = Foreground()
"""The foreground of the test set."""
BUSY = Foreground(0.5, 3, (0.06, 0.32), lively_share=0.5, static_movie_share=0.7)
"""A foreground that distracts more than that of the test set."""


def draw_object(
    clip: Tensor, picture: NDArray[np.uint8], part: NDArray[np.float64], look: Foreground, rng: Generator
) -> None:
    """Draw a round piece of ``picture`` (H, W, 3) into ``clip`` (T, 3, H, W), at the window's parts 0..1."""
    size = clip.shape[-1]
    way = rng.uniform(-0.8, 0.8, size=2)
    centre = rng.uniform(-0.5, 0.5, size=2) + way * (part[:, None] - 0.5)
    radius = rng.uniform(*look.radius, size=2)
    scale = rng.uniform(SHRINK, 1.6) * size
    middle = np.array(picture.shape[1::-1]) / 2
    seen = np.zeros((len(part), 2)) + rng.uniform(-0.2, 0.2, size=2) * middle
    if look.lively_share and rng.random() < look.lively_share:
        centre = centre.mean(axis=0) + _swing(part, rng)
        if rng.random() < 0.5:
            centre = np.broadcast_to(centre.mean(axis=0), centre.shape)
            seen = _changing(part, rng) * middle
    affine = np.tile(np.array(((scale, 0.0, 0.0), (0.0, scale, 0.0))), (len(part), 1, 1))
    affine[:, :, 2] = middle - scale * centre + seen
    texture = render_view(picture[None], affine, size)
    axis = (np.arange(size) + 0.5) / size - 0.5
    far = ((axis[None, None] - centre[:, 0, None, None]) / radius[0]) ** 2
    far = far + ((axis[None, :, None] - centre[:, 1, None, None]) / radius[1]) ** 2
    mask = torch.from_numpy(np.clip(3 * (1.15 - far), 0, 1)).float()[:, None]
    clip.lerp_(texture, mask)


def _swing(part: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """Draw a way there and back in two directions: (T,) -> (T, 2)."""
    turns, phase = rng.uniform(*SWINGS, size=2), rng.uniform(0, 2 * np.pi, size=2)
    return rng.uniform(0, SWING_MAX, size=2) * np.sin(2 * np.pi * turns * part[:, None] + phase)


def _changing(part: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """Draw which piece of a picture an object shows, from its middle -0.5..0.5: (T,) -> (T, 2)."""
    pieces = int(rng.integers(*CHANGES))
    return rng.uniform(-0.5, 0.5, size=(pieces, 2))[np.minimum((part * pieces).astype(int), pieces - 1)]
