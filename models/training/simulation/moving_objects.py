"""Clips with several objects that move alike, but for one whose manner of moving, at one time, is the label.

All objects step back and forth, by the same distance a frame. In one span of four frames, one of them steps
ahead instead: its direction is the label. So what decides is at a known place and time, while each object
moves as much as any other, all the time. B windows, T frames in a window, M objects, H W C pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils.data import Dataset

from tubelet.models.training.samples import Batch, as_units

LABELS = ("left", "right", "up", "down")
_DIRECTIONS = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])  # x, y; y is down
SIZE = 48  # height and width of a clip, pixels
FRAMES = 16  # in a window
SPAN_FRAMES = 4  # in which an object steps ahead
OBJECTS = 4  # in a clip
CELLS = 3  # objects stand apart: each in a cell of a grid of this many rows and columns
STEP = 2.5  # distance from frame to frame, pixels
RADIUS = (4.0, 5.0)  # of an object, pixels
PLACE_JITTER = 1.5  # largest distance of a place from the middle of its cell, pixels a side
BACKGROUND_CELL = 8  # size of the background's spots, pixels
NOISE = 0.02  # standard deviation of a pixel, 0..1
EASY_SHARE = 0.6  # of the batches of a run, in which other objects and spans have the manner too, ever fewer


@dataclass(frozen=True, slots=True)
class Clips:
    """Windows with their truth: ``pixels`` (B, T, H, W, C) uint8, ``labels`` (B,), and what decides.

    ``span`` (B,) is the number of the span of frames in which an object steps ahead, ``place`` (B, H, W) bool
    what it covers in that span.
    """

    pixels: Tensor
    labels: Tensor
    span: Tensor
    place: Tensor


class MovingObjects(Dataset[Batch]):
    """Batches of clips, first easy ones. Batch ``i`` is always the same, so that a run can resume."""

    def __init__(self, frames_per_unit: int, *, seed: int, batches: int, batch_size: int) -> None:
        self.frames_per_unit, self.seed = frames_per_unit, seed
        self.batches, self.batch_size = batches, batch_size

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < self.batches:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        ease = max(0.0, 1 - index / (EASY_SHARE * self.batches))
        clips = render(self.batch_size, generator, ease)
        return Batch(as_units(clips.pixels, self.frames_per_unit), clips.labels)


def render(count: int, generator: Generator, ease: float = 0.0) -> Clips:
    """Render ``count`` random clips with their truth.

    ``ease`` is the probability that another object, or another span, has the manner that decides, too.
    """
    labels = torch.randint(0, len(LABELS), (count,), generator=generator)
    span = torch.randint(0, FRAMES // SPAN_FRAMES, (count,), generator=generator)
    covered = _discs(
        _places(count, generator)[:, None] + offsets_of(labels, span, ease, generator), generator
    )
    pixels = _background(count, generator)[:, None].repeat(1, FRAMES, 1, 1, 1)
    colours = torch.rand(count, 1, OBJECTS, 1, 1, 3, generator=generator)
    for number in range(OBJECTS):
        pixels = torch.lerp(pixels, colours[:, :, number], covered[:, :, number, :, :, None])
    pixels = pixels.add_(NOISE * torch.randn(pixels.shape, generator=generator)).clamp_(0, 1)
    in_span = covered[:, :, 0].unflatten(1, (-1, SPAN_FRAMES))[torch.arange(count), span]
    return Clips(pixels.mul_(255).round_().to(torch.uint8), labels, span, in_span.amax(dim=1) > 0.5)


def offsets_of(labels: Tensor, span: Tensor, ease: float, generator: Generator) -> Tensor:
    """Return how far objects are from their places, pixels; object 0 has the label: -> (B, T, M, 2)."""
    count, spans = len(labels), FRAMES // SPAN_FRAMES
    alike = torch.rand(count, OBJECTS, generator=generator) < ease
    steps_ahead = (torch.rand(count, spans, OBJECTS, generator=generator) < ease) & alike[:, None]
    alike[:, 0] = True
    steps_ahead[torch.arange(count), span, 0] = True
    turn = 2 * torch.pi * torch.rand(count, OBJECTS, generator=generator)
    direction = torch.stack((turn.cos(), turn.sin()), dim=-1)
    direction[alike] = _DIRECTIONS[labels][:, None].expand(-1, OBJECTS, -1)[alike]
    # From behind its place to before it. The steps into the span and out of it are as long as all others.
    ahead = (torch.arange(FRAMES) % SPAN_FRAMES - (SPAN_FRAMES - 1) / 2)[:, None]
    phase = torch.randint(0, 2, (count, 1, OBJECTS), generator=generator) * ~alike[:, None]
    back_and_forth = 0.5 - (torch.arange(FRAMES)[:, None] + phase) % 2
    along = torch.where(steps_ahead.repeat_interleave(SPAN_FRAMES, dim=1), ahead, back_and_forth)
    return STEP * along[..., None] * direction[:, None]


def _places(count: int, generator: Generator) -> Tensor:
    """Draw the places of objects, pixels from the top left: -> (B, M, 2), x and y."""
    cells = torch.rand(count, CELLS**2, generator=generator).argsort(dim=1)[:, :OBJECTS]
    middle = (torch.stack((cells % CELLS, cells // CELLS), dim=-1) + 0.5) * SIZE / CELLS
    return middle + PLACE_JITTER * (2 * torch.rand(middle.shape, generator=generator) - 1)


def _discs(centres: Tensor, generator: Generator) -> Tensor:
    """Draw discs with soft borders around centres: (B, T, M, 2) -> (B, T, M, H, W), 1 inside."""
    low, high = RADIUS
    radius = low + (high - low) * torch.rand(len(centres), 1, OBJECTS, 1, 1, generator=generator)
    axis = torch.arange(SIZE) + 0.5
    x, y = (centres[..., part, None] - axis for part in (0, 1))
    return (radius + 0.5 - (x[..., None, :] ** 2 + y[..., :, None] ** 2).sqrt()).clamp_(0, 1)


def _background(count: int, generator: Generator) -> Tensor:
    """Draw soft spots that stand still: -> (B, H, W, C) in 0..1."""
    side = SIZE // BACKGROUND_CELL
    spots = 0.3 + 0.4 * torch.rand(count, 3, side, side, generator=generator)
    return F.interpolate(spots, size=SIZE, mode="bilinear").permute(0, 2, 3, 1)
