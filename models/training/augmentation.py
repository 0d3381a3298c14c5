"""Augmentation of windows in training: mirroring, RandAugment, random erasing, mixup, drop path.

RandAugment: Cubuk et al., arXiv 1909.13719. Random erasing: Zhong et al., arXiv 1708.04896. Mixup: Zhang et
al., arXiv 1710.09412. Drop path: Huang et al., arXiv 1603.09382. B windows, S units, K classes, T frames.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from tubelet.models.families.layers import Attention, Mlp
from tubelet.models.training.samples import Batch

Mirroring = Literal["auto", "on", "off"]
"""Whether half of the windows are mirrored; ``auto``: unless a label names a side or a turn."""
ERASED = 0.25
"""Share of windows in which a rectangle is erased."""
MIXUP = 0.2
"""Parameter of the beta distribution that mixes two windows of a pair."""
SMOOTHING = 0.05
"""Share of a label's weight that is divided among all labels."""
_DIRECTIONS = re.compile(
    r"(left|right)(wards?|hand|y)?|west|east|c?cw|(counter|anti)?clockwise|(fore|back)hand"
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is done to windows in training; ``drop_path`` is the rate of the last layer."""

    mirror: bool = True
    rand_augment: bool = True
    erase: bool = True
    mixup: bool = True
    drop_path: float = 0.1


def labels_with_direction(labels: Iterable[str]) -> list[str]:
    """Return the labels that name a side or a turn, which a mirrored picture shows the other way round."""
    return [
        label for label in labels if any(_DIRECTIONS.fullmatch(word.lower()) for word in _WORD.findall(label))
    ]


def augment(units: Tensor, how: Augmentation, seed: int) -> Tensor:
    """Change all frames of a window alike, as ``seed`` decides: (S, t, H, W, C) uint8 -> the same shape."""
    from torchvision.transforms import RandAugment, RandomErasing

    # torchvision draws from torch's global generator.
    torch.manual_seed(seed)
    frames = rearrange(units, "s t h w c -> (s t) c h w")
    if how.mirror and torch.rand(()) < 0.5:
        frames = frames.flip(-1)
    if how.rand_augment:
        frames = RandAugment(num_ops=1, magnitude=9, fill=[127.0] * 3)(frames)
    if how.erase:
        frames = RandomErasing(p=ERASED, value=127)(frames)
    return rearrange(frames, "(s t) c h w -> s t h w c", t=units.shape[1]).contiguous()


def make_targets(labels: Tensor, weights: Tensor) -> Tensor:
    """Return smoothed labels times the weight of their class: (B,), (K,) -> (B, K).

    Independent labels, (B, K), are not smoothed, so that scores stay as frequent as labels are. Their targets
    are the weights of having each one and of not having it: -> (B, K, 2).
    """
    count = len(weights)
    if labels.ndim == 2:
        return torch.stack((labels, 1 - labels), dim=-1) * weights[:, None].float()
    smoothed = F.one_hot(labels, count) * (1 - SMOOTHING) + SMOOTHING / count
    return (smoothed * weights[labels][:, None]).float()


def mix(batch: Batch, seed: int) -> Batch:
    """Mix windows 0 and 1, 2 and 3, and so on, with their targets; the larger share keeps its label.

    A last window without a partner stays as it is.
    """
    assert batch.targets is not None
    torch.manual_seed(seed)
    share = float(torch.distributions.Beta(MIXUP, MIXUP).sample())
    share = max(share, 1 - share)
    paired = len(batch.labels) // 2 * 2
    partner = torch.arange(len(batch.labels))
    partner[:paired] ^= 1
    targets = batch.targets.lerp(batch.targets[partner], 1 - share)
    if batch.units.is_floating_point():
        return replace(batch, units=batch.units.lerp(batch.units[partner], 1 - share), targets=targets)
    # In 256ths of 16-bit integers, which are several times as fast as floats; at most 255 x 128 fits.
    units, weight = batch.units.clone(), round(256 * (1 - share))
    even, odd = batch.units[0:paired:2].short(), batch.units[1:paired:2].short()
    change = (odd - even).mul_(weight).bitwise_right_shift_(8)
    units[0:paired:2] = (even + change).to(torch.uint8)
    units[1:paired:2] = (odd - change).to(torch.uint8)
    return replace(batch, units=units, targets=targets)


def set_drop_path_(model: nn.Module, rate: float) -> None:
    """Let residual branches be left out in training, with rates that grow with depth up to ``rate``.

    Branches are those of tubelet's transformer blocks and timm's; torchvision's models have their own rates.
    """
    branches = [
        module
        for name, module in model.named_modules()
        if isinstance(module, Attention | Mlp)
        or (name.endswith("drop_path") and isinstance(module, nn.Identity))
    ]
    for number, module in enumerate(branches):
        module.register_forward_hook(partial(_drop, rate * (number + 1) / len(branches)))


def _drop(rate: float, module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Replace a branch's output by zero for a share of the rows, and scale up the others."""
    return stochastic_depth(output, rate, "row", module.training)
