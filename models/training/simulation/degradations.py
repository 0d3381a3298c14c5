"""What cameras, encoders and broadcasters do to pictures, on whole batches.

B windows, T frames, H W pixels; pixels are 0..1.
"""

import torch
from einops import rearrange
from torch import Generator, Tensor

DCT = 8  # pixels, the side of a transform block


def degrade(clips: Tensor, generator: Generator) -> Tensor:
    """(B, T, 3, H, W) -> the same: light, colour, blur, overlays, letterbox, noise, quantised blocks."""
    clips = _light(clips, generator)
    for effect, share in ((_blur, 0.35), (_letterbox, 0.1), (_logo, 0.15), (_noise, 0.5), (_quantise, 0.35)):
        chosen = torch.rand(len(clips), generator=generator) < share
        if chosen.any():
            clips[chosen] = effect(clips[chosen], generator)
    return clips.clamp_(0, 1)


def _uniform(low: float, high: float, size: int, generator: Generator) -> Tensor:
    values = low + (high - low) * torch.rand(size, generator=generator)
    return values[:, None, None, None, None]


def _light(clips: Tensor, generator: Generator) -> Tensor:
    """Gamma, contrast, brightness that drift over the window, colour casts, black and white, fades."""
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
    side = _uniform(0.05, 0.33, len(clips), generator)
    for axis in (-1, -2):
        clips = (1 - 2 * side) * clips + side * (clips.roll(1, axis) + clips.roll(-1, axis))
    return clips


def _letterbox(clips: Tensor, generator: Generator) -> Tensor:
    height = clips.shape[-2]
    for clip in clips:
        bar = int(torch.randint(1, height // 5, (1,), generator=generator))
        if torch.rand(1, generator=generator) < 0.5:
            clip[..., :bar, :], clip[..., -bar:, :] = 0, 0
        else:
            clip[..., :bar], clip[..., -bar:] = 0, 0
    return clips


def _logo(clips: Tensor, generator: Generator) -> Tensor:
    """A small picture that stays in place whatever the camera does: a logo, a clock, subtitles."""
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
    strength = _uniform(0, 0.05, len(clips), generator)
    return clips + strength * torch.randn(clips.shape, generator=generator)


def _quantise(clips: Tensor, generator: Generator) -> Tensor:
    """Lossy compression: the 8 x 8 cosine transform with coarse steps that grow with the frequency."""
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
