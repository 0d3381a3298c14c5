"""Augmentation of windows in training: mirroring, RandAugment, random erasing, mixup.

RandAugment: Cubuk et al., arXiv 1909.13719. Random erasing: Zhong et al., arXiv 1708.04896. Mixup: Zhang et
al., arXiv 1710.09412. B windows, S units, K classes, T frames.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.models.training.rand_augment import FILL, Operation, apply, draw_operation
from tubelet.models.training.samples import Batch

Mirroring = Literal["auto", "on", "off"]
"""Whether half of the windows are mirrored; ``auto``: unless a label names a side or a turn."""
ERASED = 0.25
"""Share of windows in which a rectangle is erased."""
MIXUP = 0.2
"""Parameter of the beta distribution that mixes two windows of a pair."""
SMOOTHING = 0.05
"""Share of a label's weight that is divided among all labels."""
_ERASED_AREA = (0.02, 0.33)  # of the picture
_FLATTEST, _TALLEST = math.log(0.3), math.log(3.3)  # logarithms of height over width
_ERASE_TRIES = 10  # at a rectangle that is smaller than the picture
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
    """Change all frames of a window alike, as ``seed`` decides: (S, t, H, W, C) uint8 -> the same shape.

    The result may share memory with ``units``.
    """
    draw = np.random.default_rng(seed)
    is_mirrored = bool(draw.integers(2)) and how.mirror
    operation = draw_operation(draw) if how.rand_augment else Operation("identity", 1)
    frames = apply(units.flatten(0, 1), operation, is_mirrored=is_mirrored)
    if how.erase and draw.random() < ERASED:
        frames = _erase(frames, draw)
    return frames.view(units.shape)


def _erase(frames: Tensor, draw: np.random.Generator) -> Tensor:
    """Fill a random rectangle with grey, the same one in all frames: (F, H, W, C) -> the same shape."""
    height, width = frames.shape[1:3]
    for _ in range(_ERASE_TRIES):
        area = height * width * draw.uniform(*_ERASED_AREA)
        aspect = math.exp(draw.uniform(_FLATTEST, _TALLEST))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rows < height and columns < width:
            top, left = draw.integers(height - rows + 1), draw.integers(width - columns + 1)
            erased = frames.clone()
            erased[:, top : top + rows, left : left + columns] = FILL
            return erased
    return frames


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


def mix_(batch: Batch, seed: int) -> Batch:
    """Mix windows 0 and 1, 2 and 3, and so on, with their targets; the larger share keeps its label.

    The units of ``batch`` may be overwritten. A last window without a partner stays as it is.
    """
    assert batch.targets is not None
    share = np.random.default_rng(seed).beta(MIXUP, MIXUP)
    other = min(share, 1 - share)
    paired = len(batch.labels) // 2 * 2
    partner = torch.arange(len(batch.labels))
    partner[:paired] ^= 1
    targets = batch.targets.lerp(batch.targets[partner], other)
    if batch.units.is_floating_point():
        return replace(batch, units=batch.units.lerp(batch.units[partner], other), targets=targets)
    if weight := round(256 * other):
        for even in range(0, paired, 2):
            for one, two in zip(batch.units[even], batch.units[even + 1], strict=True):
                _mix_bytes_(one, two, weight)
    return replace(batch, targets=targets)


def _mix_bytes_(one: Tensor, two: Tensor, weight: int) -> None:
    """Give each of two tensors of uint8 ``weight`` 256ths of the other; the weight is at most 128.

    Integers of 16 bits, in which 255 x 128 fits, are several times as fast as floats.
    """
    change = (two.short() - one.short()).mul_(weight).bitwise_right_shift_(8).to(torch.uint8)
    one += change  # modulo 256, as the change is
    two -= change
