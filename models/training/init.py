"""Initialise tubelet kernels with drifting gratings, which detect motion, and positions with sinusoids.

Adelson and Bergen, "Spatiotemporal energy models for the perception of motion", JOSA A 1985: pairs of such
filters a quarter wave apart, squared and added, tell speed and direction. D embedding width, C channels,
t frames, p q pixels.
"""

import math
from typing import cast

import torch
from torch import Generator, Tensor, nn

from tubelet.models.families.divided import Divided, DividedBlock
from tubelet.models.families.layers import Encoder

WAVES = (1 / 14, 1 / 4)  # spatial frequency, cycles per pixel
SPEEDS = (0.15, 6.0)  # drift, pixels per frame
TURN_MAX = 0.4  # most cycles per frame; above half a cycle, a drift looks like one in the other direction
STANDING_SHARE = 0.2  # share of gratings that do not drift, which see texture
WINDOW = (0.2, 0.4)  # standard deviation of the Gaussian window, sides of a patch
# Norm of a kernel at 0.1 cycles per pixel; proportional to frequency, as pictures have less contrast.
GAIN = 0.5


@torch.no_grad()
def drifting_gratings_(proj: nn.Conv3d | nn.Conv2d, frames: int, generator: Generator) -> None:
    """Fill a projection (D, C, t, p, q), or (D, t C, p, q) of stacked frames, with grey drifting gratings."""
    p, q = proj.weight.shape[-2:]
    pairs = proj.weight.shape[0] // 2
    wave = _log_uniform(WAVES, pairs, generator)
    speed = _log_uniform(SPEEDS, pairs, generator).minimum(TURN_MAX / wave)
    speed[torch.rand(pairs, generator=generator) < STANDING_SHARE] = 0
    angle = 2 * math.pi * torch.rand(pairs, generator=generator)
    width = p * (WINDOW[0] + (WINDOW[1] - WINDOW[0]) * torch.rand(pairs, generator=generator))
    centre = (torch.rand(2, pairs, generator=generator) - 0.5) * p / 2
    tau, y, x = torch.meshgrid(_axis(frames), _axis(p), _axis(q), indexing="ij")
    x, y, tau = x[..., None] - centre[0], y[..., None] - centre[1], tau[..., None]
    window = torch.exp(-(x**2 + y**2) / (2 * width**2))
    phase = 2 * math.pi * wave * (x * angle.cos() + y * angle.sin() - speed * tau)
    kernels = []
    for quarter in (0.0, math.pi / 2):
        kernel = window * torch.cos(phase + quarter)
        # Without a mean, so that the response to a uniform picture is zero.
        kernel = kernel - window * kernel.sum(dim=(0, 1, 2)) / window.sum(dim=(0, 1, 2))
        kernels.append(GAIN * (wave / 0.1) * kernel / kernel.flatten(0, 2).norm(dim=0))
    filters = torch.stack(kernels, dim=-1).flatten(-2).permute(3, 0, 1, 2)
    colours = filters.unsqueeze(1).expand(-1, 3, -1, -1, -1) / 3
    if isinstance(proj, nn.Conv2d):
        colours = colours.transpose(1, 2)
    proj.weight[: 2 * pairs] = colours.reshape(2 * pairs, *proj.weight.shape[1:])


def _axis(size: int) -> Tensor:
    """Return the coordinates of ``size`` pixels or frames around their centre."""
    return torch.arange(size) - (size - 1) / 2


def _log_uniform(bounds: tuple[float, float], size: int, generator: Generator) -> Tensor:
    """Draw ``size`` values between ``bounds``, uniform in their logarithm."""
    low, high = map(math.log, bounds)
    return torch.exp(low + (high - low) * torch.rand(size, generator=generator))


STRENGTH = 0.5  # root mean square of position embeddings; that of tubelet tokens is about 0.8
LONGEST = 4.0  # longest wave, in lengths of the grid: nearly a straight line over it


@torch.no_grad()
def sine_positions_(encoder: Encoder, rows: int, columns: int) -> None:
    """Fill an encoder's position embeddings with sinusoids over ``rows`` x ``columns``; 1 row for a sequence.

    The class token keeps its embedding.
    """
    width = encoder.pos_embed.shape[-1]
    encoder.pos_embed[0, 1:] = waves(columns, width) if rows == 1 else grid_waves(rows, columns, width)


def grid_waves(rows: int, columns: int, width: int) -> Tensor:
    """Return sinusoids over the rows and columns of a grid: -> (rows columns, D)."""
    along_x, along_y = waves(columns, width // 2), waves(rows, width - width // 2)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat((along_y[y.flatten()], along_x[x.flatten()]), dim=1)


def wave_cycles(count: int, pairs: int) -> Tensor:
    """Return the cycles that each sinusoid of ``waves`` has over ``count`` positions: -> (pairs,)."""
    return torch.exp(torch.linspace(math.log(1 / LONGEST), math.log(max(count / 2, 1 / LONGEST)), pairs))


def waves(count: int, width: int) -> Tensor:
    """Return sinusoids over ``count`` positions around zero, scaled to ``STRENGTH``: -> (P, D).

    The shortest waves are two positions long.
    """
    centred = (torch.arange(count) - (count - 1) / 2) / count
    phase = 2 * math.pi * centred[:, None] * wave_cycles(count, (width + 1) // 2)
    return STRENGTH * 2**0.5 * torch.cat((phase.sin(), phase.cos()), dim=1)[:, :width]


SHIFTS = (-1, 1, -2, 2)  # frames
SHIFT_GAIN = 2.0  # of queries and keys


@torch.no_grad()
def shifted_frames_(model: Divided, rows: int, columns: int) -> None:
    """Let each head of the first attention over time start with looking at a frame shortly before or after.

    With attention to all frames alike, training learns the axis of a motion, but not its direction. Times are
    sinusoids in the first half of the channels, places are sinusoids in the other half. A query is the
    sinusoids of a later or earlier frame, a key is those of its own.
    """
    _, frames, width = model.time_embed.shape
    half = width // 2
    model.time_embed.zero_()
    model.time_embed[0, :, :half] = 2**0.5 * waves(frames, half)
    model.pos_embed[:, 1:] = 0
    model.pos_embed[0, 1:, half:] = grid_waves(rows, columns, width - half)
    attention = cast(DividedBlock, model.blocks[0]).temporal_attn
    size = width // attention.num_heads
    pairs = half // 2
    used = torch.arange(0, pairs, pairs // (size // 2))
    turns = 2 * math.pi * wave_cycles(frames, pairs)[used] / frames
    queries, keys, _ = attention.qkv.weight.view(3, attention.num_heads, size // 2, 2, width)
    queries.zero_()
    keys.zero_()
    pair = torch.arange(size // 2)
    for head, shift in enumerate(SHIFTS):
        cos, sin = (turns * shift).cos(), (turns * shift).sin()
        queries[head, pair, 0, used], queries[head, pair, 0, pairs + used] = cos, sin
        queries[head, pair, 1, used], queries[head, pair, 1, pairs + used] = -sin, cos
        keys[head, pair, 0, used] = keys[head, pair, 1, pairs + used] = 1
    queries.mul_(SHIFT_GAIN)
    keys.mul_(SHIFT_GAIN)
