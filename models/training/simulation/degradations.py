"""Degrade batches of pictures as cameras, encoders and broadcasters do.

B windows, T frames, H W pixels; pixels are 0..1.
"""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Generator, Tensor

DCT = 8  # side of a transform block, pixels
NOISE_SHARE = 0.5  # of the clips
NOISE_MAX = 0.05  # standard deviation

Effect = Callable[[Tensor, Generator], Tensor]


def degrade(clips: Tensor, generator: Generator) -> Tensor:
    """Change light and colour, add blur, letterbox, logo, noise, compression: (B, T, 3, H, W) -> the same.

    All clips get other light; each of the other effects hits a share of the clips.
    """
    return _apply((*_BEFORE_NOISE, (_noise, NOISE_SHARE), (_quantise, 0.35)), clips, generator)


def degrade_before_noise(clips: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Do what ``degrade`` does before it adds noise; return the clips, and the strength of that noise: (B,).

    With the same generator, both functions draw the same.
    """
    clips = _apply(_BEFORE_NOISE, clips, generator)
    strength = torch.zeros(len(clips))
    chosen = torch.rand(len(clips), generator=generator) < NOISE_SHARE
    if chosen.any():
        strength[chosen] = _noise_strength(int(chosen.sum()), generator).flatten()
    return clips, strength


def _apply(effects: Sequence[tuple[Effect, float]], clips: Tensor, generator: Generator) -> Tensor:
    """Change the light of all clips, and apply each effect to a share of them."""
    clips = _light(clips, generator)
    for effect, share in effects:
        chosen = torch.rand(len(clips), generator=generator) < share
        if chosen.any():
            clips[chosen] = effect(clips[chosen], generator)
    return clips.clamp_(0, 1)


def _uniform(low: float, high: float, size: int, generator: Generator) -> Tensor:
    """Draw a value between ``low`` and ``high`` for each of ``size`` clips: -> (size, 1, 1, 1, 1)."""
    values = low + (high - low) * torch.rand(size, generator=generator)
    return values[:, None, None, None, None]


def _light(clips: Tensor, generator: Generator) -> Tensor:
    """Change saturation, gamma, contrast, brightness and colour cast; some drift over the window."""
    size, frames = clips.shape[:2]
    drift = torch.linspace(-0.5, 0.5, frames)[None, :, None, None, None]
    grey = clips.mean(dim=2, keepdim=True)
    saturation = _uniform(0, 1.3, size, generator)
    saturation[torch.rand(size, generator=generator) < 0.1] = 0
    clips = torch.lerp(grey, clips, saturation).clamp_(0, 1)
    chosen = torch.rand(size, generator=generator) < 0.4
    if chosen.any():
        count = int(chosen.sum())
        clips[chosen] = clips[chosen].clamp_min_(1e-4) ** torch.exp(_uniform(-0.6, 0.6, count, generator))
    wide = (torch.rand(size, generator=generator) < 0.3).float()[:, None, None, None, None]
    contrast = _uniform(0.55, 1.35, size, generator) * (
        1 + wide * drift * _uniform(-0.5, 0.5, size, generator)
    )
    cast = 1 + 0.12 * torch.randn(size, 1, 3, 1, 1, generator=generator)
    brightness = _uniform(-0.12, 0.12, size, generator) + wide * drift * _uniform(-0.3, 0.3, size, generator)
    return (clips - 0.5).mul_(contrast * cast).add_(0.5 + brightness).clamp_(0, 1)


def _blur(clips: Tensor, generator: Generator) -> Tensor:
    """Blur clips by a kernel of three pixels, each clip by another strength."""
    side = _uniform(0.05, 0.33, len(clips), generator)
    for axis in (-1, -2):
        clips = (1 - 2 * side) * clips + side * (clips.roll(1, axis) + clips.roll(-1, axis))
    return clips


def _letterbox(clips: Tensor, generator: Generator) -> Tensor:
    """Blacken two opposite edges of each clip, up to a fifth of the side each."""
    height = clips.shape[-2]
    for clip in clips:
        bar = int(torch.randint(1, height // 5, (1,), generator=generator))
        if torch.rand(1, generator=generator) < 0.5:
            clip[..., :bar, :], clip[..., -bar:, :] = 0, 0
        else:
            clip[..., :bar], clip[..., -bar:] = 0, 0
    return clips


def _logo(clips: Tensor, generator: Generator) -> Tensor:
    """Draw a random pattern that stays in place, as logos, clocks and subtitles do."""
    height, width = clips.shape[-2:]
    for clip in clips:
        h, w = (
            int(torch.randint(3, limit // 3, (1,), generator=generator)) for limit in (height // 2, width)
        )
        top, left = (
            int(torch.randint(0, limit, (1,), generator=generator)) for limit in (height - h, width - w)
        )
        mark = torch.rand(3, 1, 1, generator=generator)
        letters = (torch.rand(1, h, w, generator=generator) < 0.6).float()
        area = clip[..., top : top + h, left : left + w]
        area.copy_(torch.lerp(area, mark.expand_as(area), letters * torch.rand(1, generator=generator)))
    return clips


def _noise(clips: Tensor, generator: Generator) -> Tensor:
    """Add Gaussian noise, to each clip of another strength."""
    strength = _noise_strength(len(clips), generator)
    return clips + strength * torch.randn(clips.shape, generator=generator)


def _noise_strength(size: int, generator: Generator) -> Tensor:
    """Draw the standard deviation of the noise of each of ``size`` clips: -> (size, 1, 1, 1, 1)."""
    return _uniform(0, NOISE_MAX, size, generator)


def _quantise(clips: Tensor, generator: Generator) -> Tensor:
    """Compress lossily: quantise an 8 x 8 cosine transform in steps that grow with the frequency."""
    index = torch.arange(DCT)
    basis = torch.cos(torch.pi * (2 * index[None] + 1) * index[:, None] / (2 * DCT)) * (2 / DCT) ** 0.5
    basis[0] /= 2**0.5
    steps = (1 + index[:, None] + index[None]) * _uniform(0.005, 0.06, len(clips), generator)[..., None]
    blocks = rearrange(clips, "b t c (h p) (w q) -> b (t c h w) p q", p=DCT, q=DCT)
    steps = steps.reshape(len(clips), 1, DCT, DCT)
    coefficients = ((basis @ blocks @ basis.T) / steps).round_() * steps
    blocks = basis.T @ coefficients @ basis
    return rearrange(
        blocks,
        "b (t c h w) p q -> b t c (h p) (w q)",
        t=clips.shape[1],
        c=3,
        h=clips.shape[3] // DCT,
    )


_BEFORE_NOISE: tuple[tuple[Effect, float], ...] = ((_blur, 0.35), (_letterbox, 0.1), (_logo, 0.15))
