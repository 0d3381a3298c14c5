"""The pictures and clips that the simulated camera films, chosen from the frames of videos.

F frames, H W C pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tubelet.models.training.simulation.stillness import is_still

RATE_HZ = 16  # frames per second of video
STILL_EVERY = RATE_HZ  # distance of the single frames taken from clips whose own camera moves, frames
STILLS_MAX = 10  # most single frames of one clip
MIN_CONTRAST = 0.011  # least mean absolute step between neighbouring pixels (0..1); less is an empty picture


@dataclass(frozen=True, slots=True)
class Source:
    """A clip to film; ``read`` returns its frames: (F, H, W, 3) uint8.

    If ``moving``, they are a video of ``RATE_HZ``, else single pictures.
    """

    name: str
    moving: bool
    read: Callable[[], NDArray[np.uint8]]


def choose_frames(frames: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
    """Choose what to film of a video's ``frames`` at ``RATE_HZ``: -> frames (F, H, W, 3), whether they move.

    A clip whose own camera stands still is kept as it is. Of any other, single frames that show something
    are kept: none, if it is empty.
    """
    moving = len(frames) >= RATE_HZ and is_still(frames)
    if not moving:
        frames = frames[::STILL_EVERY][:STILLS_MAX]
        frames = frames[[_contrast(frame) >= MIN_CONTRAST for frame in frames]]
    elif _contrast(frames[0]) < MIN_CONTRAST:
        frames = frames[:0]
    return frames, moving


def _contrast(picture: NDArray[np.uint8]) -> float:
    """Return the mean absolute step between neighbouring pixels, grey levels in 0..1."""
    grey = picture.astype(np.float32).mean(axis=-1) / 255
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())
