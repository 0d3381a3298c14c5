"""RandAugment for windows: one random operation on all frames of a window alike, in few passes over bytes.

Cubuk et al., arXiv 1909.13719, with the operations and strengths of torchvision's ``RandAugment(num_ops=1,
magnitude=9)``. Geometry, mirroring included, is one choice of pixels for all frames; colours are one table of
256 values a channel. Where an operation depends on the picture (contrast, autocontrast, equalise), it depends
on the pixels of the whole window, so that frames do not flicker. F frames, H W pixels.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

FILL = 127
"""The value of pixels that lie outside of the picture, or are erased."""
Name = Literal[
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "colour",
    "contrast",
    "sharpness",
    "posterise",
    "solarise",
    "autocontrast",
    "equalise",
]
# Strengths at magnitude 9 of 30.
_SHEAR = 0.09  # pixels a pixel
_TRANSLATION = 45 / 331  # of the side
_ANGLE = math.radians(9)
_ENHANCEMENT = 0.27  # change of the factor 1
_KEPT_BITS = 7
_SOLARISED_FROM = 178.5
_GREY = (0.2989, 0.587, 0.114)
_MOST_MEASURED = 50_000  # pixels of a window that decide its contrast
_Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


class Operation(NamedTuple):
    """An operation with its direction: 1, or -1 for the opposite where there is one."""

    name: Name
    sign: int


def draw_operation(draw: np.random.Generator) -> Operation:
    """Draw one of the operations, all equally likely, and its direction."""
    names = get_args(Name)
    return Operation(names[draw.integers(len(names))], 1 if draw.integers(2) else -1)


def apply(frames: Tensor, operation: Operation, *, is_mirrored: bool = False) -> Tensor:
    """Mirror frames where wanted, then apply an operation: (F, H, W, 3) uint8 -> the same shape.

    The result is ``frames`` itself where nothing is to be done.
    """
    name, sign = operation
    height, width = frames.shape[1:3]
    if (matrix := _source_of(name, sign, height, width)) is not None:
        return _warp(frames, matrix, is_mirrored)
    if is_mirrored:
        frames = frames.flip(2)
    match name:
        case "colour":
            return _saturate(frames, 1 + sign * _ENHANCEMENT)
        case "sharpness":
            return _sharpen(frames, 1 + sign * _ENHANCEMENT)
        case "autocontrast" | "equalise":
            make_table = _stretching_table if name == "autocontrast" else _equalising_table
            return _look_up_channels(frames, make_table)
    table = _table(name, sign, frames)
    return frames if table is None else _look_up(frames, table)


def _source_of(name: Name, sign: int, height: int, width: int) -> _Matrix | None:
    """Return the map from (x, y, 1) of a pixel to the point that it shows; None for operations on colours.

    The origin is the upper left corner of the picture.
    """
    match name:
        case "shear_x":
            return (1, sign * _SHEAR, 0), (0, 1, 0)
        case "shear_y":
            return (1, 0, 0), (sign * _SHEAR, 1, 0)
        case "translate_x":
            return (1, 0, -sign * int(_TRANSLATION * width)), (0, 1, 0)
        case "translate_y":
            return (1, 0, 0), (0, 1, -sign * int(_TRANSLATION * height))
        case "rotate":
            cos, sin = math.cos(_ANGLE), sign * math.sin(_ANGLE)
            x, y = width / 2, height / 2
            return (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y)
    return None


def _warp(frames: Tensor, matrix: _Matrix, is_mirrored: bool) -> Tensor:
    """Show in each pixel the nearest pixel of the point that ``matrix`` names, mirrored before or not."""
    height, width = frames.shape[1:3]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    columns, rows = ((a * x + b * y + c).floor_().long() for a, b, c in matrix)
    outside = (columns < 0) | (columns >= width) | (rows < 0) | (rows >= height)
    columns, rows = columns.clamp_(0, width - 1), rows.clamp_(0, height - 1)
    if is_mirrored:
        columns = width - 1 - columns
    pixels = frames.reshape(len(frames), height * width, 3)
    warped = pixels.index_select(1, (rows * width + columns).flatten())
    warped.index_fill_(1, outside.flatten().nonzero().flatten(), FILL)
    return warped.view(frames.shape)


def _table(name: Name, sign: int, frames: Tensor) -> Tensor | None:
    """Return the table (256,) uint8 of an operation on colours; None where nothing changes."""
    values = torch.arange(256, dtype=torch.float32)
    match name:
        case "brightness":
            values *= 1 + sign * _ENHANCEMENT
        case "contrast":
            factor = 1 + sign * _ENHANCEMENT
            mean = (_measured(frames).float() @ torch.tensor(_GREY)).floor_().mean()
            values = factor * values + (1 - factor) * mean
        case "posterise":
            values -= values % (1 << (8 - _KEPT_BITS))
        case "solarise":
            values = torch.where(values >= _SOLARISED_FROM, 255 - values, values)
        case _:
            return None
    return values.clamp_(0, 255).to(torch.uint8)


def _measured(frames: Tensor) -> Tensor:
    """Return pixels at even distances, (F, H', W', 3), which stand for all of a window."""
    step = max(1, round(math.sqrt(frames[..., 0].numel() / _MOST_MEASURED)))
    return frames[:, step // 2 :: step, step // 2 :: step]


def _stretching_table(channel: Tensor) -> Tensor:
    """Return the table that makes the darkest value of ``channel`` 0 and its brightest 255."""
    low, high = float(channel.min()), float(channel.max())
    low, scale = (low, 255 / (high - low)) if high > low else (0.0, 1.0)
    return ((torch.arange(256) - low) * scale).clamp_(0, 255).to(torch.uint8)


def _equalising_table(channel: Tensor) -> Tensor:
    """Return the table that makes all values of ``channel`` equally frequent, as Pillow computes it."""
    counts = torch.bincount(channel.flatten().int(), minlength=256)
    step = int(counts.sum() - counts[counts.nonzero()[-1]]) // 255
    if not step:
        return torch.arange(256, dtype=torch.uint8)
    before = counts.cumsum(0) - counts
    return ((before + step // 2) // step).clamp_(0, 255).to(torch.uint8)


def _look_up(frames: Tensor, table: Tensor) -> Tensor:
    """Replace each value by that of ``table`` (256,)."""
    return _by_frame(frames, lambda frame: table.index_select(0, frame.int().flatten()))


def _look_up_channels(frames: Tensor, make_table: Callable[[Tensor], Tensor]) -> Tensor:
    """Replace each value by that of the table of its channel, which ``make_table`` makes of the channel."""
    tables = torch.cat([make_table(channel) for channel in _measured(frames).unbind(-1)])
    first = torch.arange(0, 768, 256, dtype=torch.int32)
    return _by_frame(frames, lambda frame: tables.index_select(0, (frame.int() + first).flatten()))


def _saturate(frames: Tensor, factor: float) -> Tensor:
    """Move colours away from grey where ``factor`` is above 1, else towards it."""
    matrix = factor * torch.eye(3) + (1 - factor) * torch.tensor(_GREY)[:, None]
    return _by_frame(frames, lambda frame: (frame.float() @ matrix).clamp_(0, 255))


def _sharpen(frames: Tensor, factor: float) -> Tensor:
    """Move pixels, but for the border, away from the mean around them where ``factor`` is above 1."""

    def sharpen(pixels: Tensor) -> Tensor:
        frame = pixels.float()
        rows = frame[:-2] + frame[1:-1] + frame[2:]
        sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
        inner = frame[1:-1, 1:-1]
        inner.lerp_((sums + 4 * inner) / 13, 1 - factor)
        return frame.clamp_(0, 255)

    return _by_frame(frames, sharpen)


def _by_frame(frames: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change each frame (H, W, 3) by itself: what is computed then stays in the processor's cache."""
    changed = torch.empty_like(frames, memory_format=torch.contiguous_format)
    for target, frame in zip(changed, frames, strict=True):
        target.copy_(change(frame).view(frame.shape))
    return changed
