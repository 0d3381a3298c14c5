"""Render what a simulated camera sees on its path over a source.

T frames in a window, F frames of a source, H W pixels, B windows.
"""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from tubelet.models.training.simulation.camera_path import Path

SMALLEST_VIEW = 52.0  # least side of the camera's view, source pixels; less would show only blur
SHRINK = 0.8  # factor by which a window that does not fit into its source is shortened
_CORNERS = np.array(((-0.5, 0.5, -0.5, 0.5), (-0.5, -0.5, 0.5, 0.5), (1.0, 1.0, 1.0, 1.0)))  # of a picture


def place_in_source(path: Path, height: int, width: int, rng: Generator) -> NDArray[np.float64] | None:
    """Place a path at random inside a source of ``height`` x ``width`` pixels; None if it does not fit.

    Returns affine maps (T, 2, 3) from picture coordinates (-0.5..0.5) to source pixels.
    """
    sides = view_sides(path, height, width)
    if sides is None:
        return None
    side = np.exp(rng.uniform(*np.log(sides)))
    return place(path, side, rng.uniform(0, 1, size=2), height, width)


def view_sides(path: Path, height: int, width: int) -> tuple[float, float] | None:
    """Return the least and the largest view at ``log_size`` 0, as sides in pixels; None if none fits."""
    low, high = _reach(path.affine())
    largest = float(((np.array((width, height)) - 1.0) / (high - low)).min())
    if largest * np.exp(path.log_size.min()) < 0.5 * SMALLEST_VIEW or largest < SMALLEST_VIEW:
        return None
    return max(SMALLEST_VIEW, 0.4 * largest), largest


def place(path: Path, side: float, part: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Place a path with views of ``side`` at a ``part`` (2,) 0..1 of the room left: -> (T, 2, 3)."""
    affine = path.affine()
    low, high = _reach(affine)
    room = np.array((width, height)) - 1.0
    start = part * (room - side * (high - low)) - side * low
    affine = affine * side
    affine[:, :, 2] += start
    return affine


def _reach(affine: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the largest x and y that a path's views show: (T, 2, 3) -> (2,), (2,)."""
    reached = affine @ _CORNERS
    return reached.min(axis=(0, 2)), reached.max(axis=(0, 2))


def render_view(frames: NDArray[np.uint8], affine: NDArray[np.float64], size: int) -> Tensor:
    """Render the camera's view: (F, H, W, 3) uint8, (T, 2, 3) -> (T, 3, size, size) in 0..1; F is T or 1."""
    reached = affine @ _CORNERS
    left, top = np.maximum(np.floor(reached.min(axis=(0, 2))).astype(int) - 2, 0)
    right, bottom = np.ceil(reached.max(axis=(0, 2))).astype(int) + 3
    seen = torch.from_numpy(np.array(frames[:, top:bottom, left:right]))
    pictures = rearrange(seen, "f h w c -> f c h w").float().div_(255)
    matrix = torch.from_numpy(affine - np.array(((0, 0, left), (0, 0, top)))).float()
    # Bilinear samples more than two pixels apart would flicker, so the picture is halved first.
    if np.sqrt(np.abs(np.linalg.det(affine[:, :, :2]))).mean() / size > 1.5 and min(pictures.shape[2:]) > 4:
        pictures = F.avg_pool2d(pictures, 2)
        matrix = matrix / 2
        matrix[:, :, 2] -= 0.25
    height, width = pictures.shape[2:]
    # Normalised with align_corners: -1 is the centre of the first pixel, 1 that of the last.
    matrix = matrix * torch.tensor((2 / (width - 1), 2 / (height - 1)))[:, None]
    matrix[:, :, 2] -= 1
    axis = (torch.arange(size) + 0.5) / size - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack((x, y, torch.ones_like(x)), dim=-1)
    grid = torch.einsum("t i j, h w j -> t h w i", matrix, points)
    if len(pictures) == 1:
        # For a single picture, all frames are sampled as one tall picture, without a copy for each.
        tall = F.grid_sample(
            pictures, rearrange(grid, "t h w i -> 1 (t h) w i"), padding_mode="border", align_corners=True
        )
        return rearrange(tall, "1 c (t h) w -> t c h w", h=size)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=True)
