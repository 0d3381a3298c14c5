"""RandAugment on windows: each operation does to a frame what torchvision's does, and to all frames alike."""

import math
from collections import Counter
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as judge
from torch import Tensor

from tubelet.models.training.rand_augment import FILL, Name, Operation, apply, draw_operation

HEIGHT, WIDTH = 48, 60


def sheared(frame: Tensor, x: float, y: float) -> Tensor:
    shear = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return judge.affine(frame, 0.0, [0, 0], 1.0, shear, fill=[FILL], center=[0, 0])


def moved(frame: Tensor, x: float, y: float) -> Tensor:
    return judge.affine(frame, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0], fill=[FILL])


# The strengths at magnitude 9 of torchvision's RandAugment, which counts to 30.
JUDGES: dict[Name, Callable[[Tensor, int], Tensor]] = {
    "identity": lambda frame, _: frame,
    "shear_x": lambda frame, sign: sheared(frame, sign * 0.3 * 0.3, 0),
    "shear_y": lambda frame, sign: sheared(frame, 0, sign * 0.3 * 0.3),
    "translate_x": lambda frame, sign: moved(frame, sign * 0.3 * 150 / 331 * WIDTH, 0),
    "translate_y": lambda frame, sign: moved(frame, 0, sign * 0.3 * 150 / 331 * HEIGHT),
    "rotate": lambda frame, sign: judge.rotate(frame, sign * 0.3 * 30, fill=[FILL]),
    "brightness": lambda frame, sign: judge.adjust_brightness(frame, 1 + sign * 0.3 * 0.9),
    "colour": lambda frame, sign: judge.adjust_saturation(frame, 1 + sign * 0.3 * 0.9),
    "contrast": lambda frame, sign: judge.adjust_contrast(frame, 1 + sign * 0.3 * 0.9),
    "sharpness": lambda frame, sign: judge.adjust_sharpness(frame, 1 + sign * 0.3 * 0.9),
    "posterise": lambda frame, _: judge.posterize(frame, 7),
    "solarise": lambda frame, _: judge.solarize(frame, 0.7 * 255),
    "autocontrast": lambda frame, _: judge.autocontrast(frame),
    "equalise": lambda frame, _: judge.equalize(frame),
}


def picture() -> Tensor:
    """Return a frame (1, H, W, 3) with slopes, noise, and values that are never reached in two channels."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH, 3)))
    channels = torch.stack((2 * x + 20, 3 * y, 100 + (x * y) % 60), dim=-1)
    return (channels + noise).clamp(0, 255).to(torch.uint8)[None]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", get_args(Name))
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_a_frame_becomes_what_torchvision_makes_of_it(name: Name, sign: int, is_mirrored: bool) -> None:
    frames = picture()
    found = apply(frames, Operation(name, sign), is_mirrored=is_mirrored)
    before = frames.flip(2) if is_mirrored else frames
    wanted = JUDGES[name](before[0].permute(2, 0, 1), sign).permute(1, 2, 0)
    differences = (found[0].int() - wanted.int()).abs()
    if name == "rotate" or name.startswith("shear"):
        assert (differences.amax(dim=-1) > 0).float().mean() < 0.01, "points between two pixels"
    else:
        assert differences.max() <= (1 if name in {"colour", "sharpness", "contrast"} else 0)
    assert name == "identity" or not torch.equal(found, before)


@pytest.mark.parametrize("name", get_args(Name))
def test_frames_of_a_window_change_alike(name: Name) -> None:
    frames = torch.cat((picture(), picture() // 2, picture()))
    kept = frames.clone()
    changed = apply(frames, Operation(name, 1))
    assert torch.equal(frames, kept), "the frames that came in are not touched"
    assert changed.shape == frames.shape
    assert changed.is_contiguous()
    assert torch.equal(changed[0], changed[2])
    before = [frames[index][frames[index][..., 1] == 90, 1] for index in (0, 1)]
    if all(map(len, before)) and name in {"contrast", "autocontrast", "equalise"}:
        one, two = (changed[index][frames[index][..., 1] == 90, 1] for index in (0, 1))
        assert one.unique().equal(two.unique()), "one table for dark frames and for bright ones"


@pytest.mark.parametrize("name", ["contrast", "autocontrast", "equalise"])
def test_large_windows_are_measured_by_some_of_their_pixels(name: Name) -> None:
    frame = picture().repeat(1, 4, 4, 1)
    found = apply(frame.repeat(8, 1, 1, 1), Operation(name, 1))
    wanted = JUDGES[name](frame[0].permute(2, 0, 1), 1).permute(1, 2, 0)
    assert (found[0].int() - wanted.int()).abs().float().mean() < 6


def test_all_operations_are_equally_likely() -> None:
    draw = np.random.default_rng(1)
    drawn = Counter(draw_operation(draw) for _ in range(28_000))
    assert len(drawn) == 2 * len(JUDGES)
    assert all(850 < count < 1150 for count in drawn.values()), "1000 each"
