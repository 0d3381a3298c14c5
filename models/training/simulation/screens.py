"""Draw screens as sources: flat colours, lines, shapes and signs, some of which change like clocks.

Real clips show few of them, but a camera films screens, slides and walls, too. F frames, H W pixels.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tubelet.models.training.simulation.sources import RATE_HZ, Source

SIDES = (160, 213)  # of a screen, pixels
FRAMES = 2 * RATE_HZ  # of a screen on which something changes
BARS = (0, 7)  # upright or level bars of colour
LINES, SHAPES, WORDS = (1, 6), (0, 5), (1, 6)  # how many there are
SIGN = (7, 5)  # dots of a sign


def draw_screens(count: int, seed: int) -> list[Source]:
    """Return ``count`` screens, always the same for a seed; half of them are clips in which signs change."""
    return [_screen(number, np.random.default_rng((seed, number))) for number in range(count)]


def _screen(number: int, rng: Generator) -> Source:
    """Draw one screen."""
    moving = number % 2 == 1
    frames = np.repeat(_background(rng)[None], FRAMES if moving else 1, axis=0)
    for _ in range(rng.integers(*WORDS)):
        _write_word(frames, moving and rng.random() < 0.6, rng)
    if moving and rng.random() < 0.7:
        _move_block(frames, rng)
    return Source(f"screen-{number}", moving, lambda: frames)


def _background(rng: Generator) -> NDArray[np.uint8]:
    """Draw what stays: bars, lines, rectangles and discs: -> (H, W, 3)."""
    height, width = SIDES
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = _colour(rng) * (rng.random() < 0.6)
    y, x = np.mgrid[:height, :width]
    bars = int(rng.integers(*BARS))
    for number in range(bars if rng.random() < 0.5 else 0):
        picture[:, number * width // bars : (number + 1) * width // bars] = _colour(rng)
    for _ in range(rng.integers(*LINES)):
        angle = rng.choice((0.0, np.pi / 2, rng.uniform(0, np.pi)))
        away = np.cos(angle) * (x - rng.uniform(0, width)) + np.sin(angle) * (y - rng.uniform(0, height))
        picture[np.abs(away) < rng.uniform(0.6, 2.5)] = _colour(rng)
    for _ in range(rng.integers(*SHAPES)):
        far = np.abs(np.stack((x - rng.uniform(0, width), y - rng.uniform(0, height))))
        far = far / rng.uniform(6, 40, size=(2, 1, 1))
        picture[(far.max(axis=0) if rng.random() < 0.5 else np.hypot(*far)) < 1] = _colour(rng)
    return picture


def _write_word(frames: NDArray[np.uint8], changing: bool, rng: Generator) -> None:
    """Write signs of random dots into ``frames`` (F, H, W, 3); a ``changing`` word gets new ones."""
    height, width = SIDES
    zoom, signs = int(rng.integers(1, 4)), int(rng.integers(2, 9))
    high, wide = SIGN[0] * zoom, signs * (SIGN[1] + 1) * zoom
    top, left = int(rng.integers(0, height - high)), int(rng.integers(0, max(1, width - wide)))
    colour, every = _colour(rng), int(rng.integers(1, 9))
    for first in range(0, len(frames), every if changing else len(frames)):
        dots = np.pad(rng.random((signs, *SIGN)) < 0.5, ((0, 0), (0, 0), (0, 1)))
        word = np.kron(np.concatenate(list(dots), axis=1), np.ones((zoom, zoom), bool))[:, : width - left]
        last = first + every if changing else len(frames)
        frames[first:last, top : top + high, left : left + word.shape[1]][:, word] = colour


def _move_block(frames: NDArray[np.uint8], rng: Generator) -> None:
    """Let a block of one colour move over ``frames`` (F, H, W, 3), and come back from the other side."""
    height, width = SIDES
    h, w = rng.integers(6, 40, size=2)
    start, step, colour = rng.uniform(0, 1, size=2) * SIDES, rng.uniform(-4, 4, size=2), _colour(rng)
    for number, frame in enumerate(frames):
        top, left = (start + number * step).astype(int) % (height, width)
        frame[top : top + h, left : left + w] = colour


def _colour(rng: Generator) -> NDArray[np.uint8]:
    """Draw a colour: grey, white, or any."""
    if rng.random() < 0.4:
        return np.full(3, rng.choice((255, int(rng.integers(256)))), np.uint8)
    return rng.integers(0, 256, size=3, dtype=np.uint8)
