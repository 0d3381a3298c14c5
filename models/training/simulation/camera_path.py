"""Simulate camera moves: the path of a square view over a picture, for a given label.

T frames in a window. Lengths are in sides of the picture that the camera sees, time in seconds, angles in
radians. The axes are the picture's: x to the right, y down; a positive roll turns the camera clockwise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

LABELS = (
    "static",
    "pan_left",
    "pan_right",
    "tilt_up",
    "tilt_down",
    "zoom_in",
    "zoom_out",
    "roll_cw",
    "roll_ccw",
    "shake",
)
# The least change from a window's first frame to its last that counts as a move.
MIN_SHIFT = 0.06  # sides
MIN_ZOOM = 0.07  # natural logarithm of the ratio of sizes
MIN_ROLL = np.radians(5.0)
MIN_SHAKE = 0.012  # sides, root mean square
# The largest change in a window that counts as static.
MAX_STILL_SHIFT = 0.008  # sides, from first frame to last
MAX_STILL_TREMOR = 0.004  # sides, root mean square
# Speed, a second, log-uniform; and the largest move in a window.
SHIFT_PER_S, MAX_SHIFT = (0.05, 0.9), 3.0
ZOOM_PER_S, MAX_ZOOM = (0.05, 0.55), 1.1
ROLL_PER_S, MAX_ROLL = (np.radians(5.0), np.radians(60.0)), np.radians(150.0)
SHAKE_RMS = (MIN_SHAKE, 0.06)  # sides, root mean square
SHAKE_HZ = (2.0, 8.0)  # frequencies of a shake
TREMOR_HZ = (0.4, 5.0)  # frequencies of a hand's tremor
CROSS = 0.12  # largest motion along other axes, as a share of the move's shift at the picture's border
COMMON_RATES_HZ = (24.0, 25.0, 30.0)  # frame rates of most windows
RATE_HZ = (10.0, 60.0)  # frame rates of the other windows
START_ROLL = np.radians(8.0)  # standard deviation of the horizon's tilt


@dataclass(frozen=True, slots=True)
class Path:
    """The camera's position at each frame; all fields are (T,).

    ``log_size`` is the logarithm of the side of the camera's view: it falls when the camera zooms in.
    """

    times_s: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    log_size: NDArray[np.float64]
    roll: NDArray[np.float64]

    def affine(self) -> NDArray[np.float64]:
        """Return affine maps from picture coordinates (-0.5..0.5) to the scene's: -> (T, 2, 3).

        At ``log_size`` 0 the camera sees a side of 1.
        """
        size, cos, sin = np.exp(self.log_size), np.cos(self.roll), np.sin(self.roll)
        rows = ((size * cos, -size * sin, self.x), (size * sin, size * cos, self.y))
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    def flow(self) -> NDArray[np.float64]:
        """Return the content's motion between frames, (T - 1, 4): shift x, shift y, growth, clockwise turn.

        Shifts are in sides of the earlier frame's picture at its centre, growth and turn in radians.
        """
        dx, dy = np.diff(self.x), np.diff(self.y)
        size, cos, sin = np.exp(self.log_size[1:]), np.cos(self.roll[1:]), np.sin(self.roll[1:])
        right, down = (cos * dx + sin * dy) / size, (-sin * dx + cos * dy) / size
        return np.stack((-right, -down, -np.diff(self.log_size), -np.diff(self.roll)), axis=-1)


@dataclass(frozen=True, slots=True)
class Motion:
    """What a path is made of: ``move`` (4, T), in x, y, log_size and roll, and the hand's tremor beside it.

    ``tremor`` (3, T), in x, y and roll, counts ``tremor_scale`` times; ``start_roll`` is the horizon's tilt.
    """

    times_s: NDArray[np.float64]
    move: NDArray[np.float64]
    tremor: NDArray[np.float64]
    tremor_scale: float
    start_roll: float

    def path(self) -> Path:
        """Return the path of this motion."""
        x, y, zoom, roll = self.move
        x, y = x + self.tremor_scale * self.tremor[0], y + self.tremor_scale * self.tremor[1]
        roll = roll + self.tremor_scale * 0.5 * self.tremor[2]
        cos, sin = np.cos(self.start_roll), np.sin(self.start_roll)
        return Path(self.times_s, cos * x - sin * y, sin * x + cos * y, zoom, self.start_roll + roll)


def simulate(label: str, window_s: float, frames: int, rng: Generator) -> Path:
    """Simulate a random path with the move ``label``, with ``frames`` frames sampled as the service does."""
    return draw_motion(label, window_s, frames, rng).path()


def draw_motion(label: str, window_s: float, frames: int, rng: Generator) -> Motion:
    """Draw the motion of a random path with the move ``label``; a shake has no tremor beside it."""
    times = _sample_times(window_s, frames, rng)
    scale = draw_tremor_scale(label, rng)
    tremor = np.stack([_wobble(times, TREMOR_HZ, rng) for _ in range(3)])
    move = draw_move(label, window_s, times, rng)
    start = rng.normal(0, START_ROLL) if rng.random() < 0.5 else 0.0
    return Motion(times, move, tremor, 0.0 if label == "shake" else scale, start)


def draw_move(label: str, window_s: float, times: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """Draw the move ``label`` in x, y, log_size and roll at ``times``: (T,) -> (4, T)."""
    if label == "shake":
        return _shake(times, rng)
    return _moves(label, window_s, rng)[:, None] * _ease(times / window_s, rng)


def simulate_within(label: str, window_s: float, frames: int, moving: range, rng: Generator) -> Path:
    """Simulate a random path whose move ``label`` begins and ends with the frames ``moving``.

    The camera stands still before and after, and frames are evenly spaced.
    """
    times = np.arange(frames) * window_s / frames
    curves = np.zeros((4, frames))
    if label == "shake":
        curves[:, moving.start : moving.stop] = _shake(times[moving.start : moving.stop], rng)
    else:
        progress = np.clip((np.arange(frames) - moving.start) / (len(moving) - 1), 0, 1)
        curves = _moves(label, window_s * len(moving) / frames, rng)[:, None] * progress
    return Path(times, *curves)


def _shake(times: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """Draw a shake in x, y, log_size and roll: (T,) -> (4, T)."""
    rms = _log_uniform(SHAKE_RMS, rng)
    angle, flatness = rng.uniform(0, np.pi), rng.uniform(0.1, 1.0)
    main, cross = (_detrended(_wobble(times, SHAKE_HZ, rng)) for _ in range(2))
    main, cross = rms * main / np.hypot(1, flatness), rms * flatness * cross / np.hypot(1, flatness)
    x, y = np.cos(angle) * main - np.sin(angle) * cross, np.sin(angle) * main + np.cos(angle) * cross
    roll = rng.uniform(0, 0.4) * rms * _detrended(_wobble(times, SHAKE_HZ, rng))
    return np.stack((x, y, np.zeros_like(x), roll))


def _moves(label: str, window_s: float, rng: Generator) -> NDArray[np.float64]:
    """Draw the total move of a window in x, y, log_size and roll: -> (4,)."""
    signs = {"left": -1, "right": 1, "up": -1, "down": 1, "in": -1, "out": 1, "cw": 1, "ccw": -1}
    kind, _, way = label.partition("_")
    whole = np.zeros(4)
    if kind == "static":
        angle = rng.uniform(0, 2 * np.pi)
        whole[:2] = rng.uniform(0, MAX_STILL_SHIFT) * np.array((np.cos(angle), np.sin(angle)))
        return whole * (rng.random() < 0.5)
    axis, low, speeds, high, at_border = {
        "pan": (0, MIN_SHIFT, SHIFT_PER_S, MAX_SHIFT, 1.0),
        "tilt": (1, MIN_SHIFT, SHIFT_PER_S, MAX_SHIFT, 1.0),
        "zoom": (2, MIN_ZOOM, ZOOM_PER_S, MAX_ZOOM, 0.5),
        "roll": (3, MIN_ROLL, ROLL_PER_S, MAX_ROLL, 0.5),
    }[kind]
    size = _log_uniform(speeds, rng) * window_s
    if size < low:
        size = _log_uniform((low, 2 * low), rng)
    size = min(size, high)
    if rng.random() < 0.6:
        beside = min(size * at_border, 0.5) * CROSS * rng.uniform(-1, 1, size=4) * (1, 1, 2, 2)
        whole = beside * (rng.random(4) < 0.5)
    whole[axis] = signs[way] * size
    return whole


def draw_tremor_scale(label: str, rng: Generator) -> float:
    """Draw the root mean square of the hand's tremor, sides."""
    if rng.random() < 0.4:
        return 0.0
    return rng.uniform(0, MAX_STILL_TREMOR if label == "static" else 1.5 * MAX_STILL_TREMOR)


def _sample_times(window_s: float, frames: int, rng: Generator) -> NDArray[np.float64]:
    """Draw a frame rate; return the times of the frames shown in the middles of a window's parts: -> (T,)."""
    rate = rng.choice(COMMON_RATES_HZ) if rng.random() < 0.6 else _log_uniform(RATE_HZ, rng)
    middles = (np.arange(frames) + 0.5) * window_s / frames
    phase = rng.uniform(0, 1)
    held = (np.floor(middles * rate + phase) - phase) / rate
    return held - held[0]


def _ease(part: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """Draw an easing curve: monotonic progress 0..1 at the window's parts 0..1: (T,) -> (T,)."""
    part = part / part[-1]
    match rng.choice(("steady", "smooth", "faster", "slower", "late"), p=(0.5, 0.14, 0.09, 0.09, 0.18)):
        case "smooth":
            return part * part * (3 - 2 * part)
        case "faster":
            return part ** rng.uniform(1, 2)
        case "slower":
            return 1 - (1 - part) ** rng.uniform(1, 2)
        case "late":
            start, end = (rng.uniform(0, 0.4), 1.0) if rng.random() < 0.5 else (0.0, rng.uniform(0.6, 1))
            return np.clip((part - start) / (end - start), 0, 1)
    return part


def _wobble(times: NDArray[np.float64], band_hz: tuple[float, float], rng: Generator) -> NDArray[np.float64]:
    """Draw noise in a band of frequencies, with a root mean square of about 1: (T,) -> (T,)."""
    hz, phase = rng.uniform(*band_hz, size=(5, 1)), rng.uniform(0, 2 * np.pi, size=(5, 1))
    return (np.sin(2 * np.pi * hz * times + phase) * rng.uniform(0.3, 1, size=(5, 1))).sum(axis=0) / 1.1


def _detrended(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Remove the linear trend of ``values``, and scale them to a root mean square of 1: (T,) -> (T,)."""
    index = np.arange(len(values))
    rest = values - np.polyval(np.polyfit(index, values, 1), index)
    return rest / max(float(np.sqrt((rest**2).mean())), 1e-6)


def _log_uniform(bounds: tuple[float, float], rng: Generator) -> float:
    """Draw a value between ``bounds``, uniform in its logarithm."""
    return float(np.exp(rng.uniform(*np.log(bounds))))
