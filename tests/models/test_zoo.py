"""The embedded models: they load, and they know the moves that this file renders by cutting pictures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from tubelet.models.repository.repository import ModelStore
from tubelet.models.training.samples import as_units

STORE = ModelStore()
NAMES = [spec.name for spec in STORE.specs()]
FRAMES, SCENES = 16, 6
WEIGHTS_MAX_BYTES = 16 * 2**20
# Label -> what happens to the cut from first to last frame: x and y in pixels, growth of its side.
CUTS = {
    "static": (0, 0, 1.0),
    "pan_left": (-60, 0, 1.0),
    "pan_right": (60, 0, 1.0),
    "tilt_up": (0, -60, 1.0),
    "tilt_down": (0, 60, 1.0),
    "zoom_in": (0, 0, 0.6),
    "zoom_out": (0, 0, 1.6),
}


def scene(seed: int) -> torch.Tensor:
    """(1, 3, 512, 512) in 0..1: coarse and fine random texture with some boxes before it."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        F.interpolate(torch.rand(1, 3, cells, cells, generator=generator), 512, mode="bicubic")
        for cells in (5, 16, 48)
    ]
    picture = 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]
    for _ in range(25):
        x, y, w, h = torch.randint(10, 120, (4,), generator=generator).tolist()
        picture[..., 4 * y : 4 * y + h, 4 * x : 4 * x + w] = torch.rand(1, 3, 1, 1, generator=generator)
    return picture.clamp(0, 1)


def cut(label: str, seed: int, size: int) -> torch.Tensor:
    """(T, size, size, 3) uint8: a window of 144 pixels that moves over a scene as CUTS says."""
    picture, (dx, dy, growth) = scene(seed), CUTS[label]
    frames = []
    for part in np.linspace(0, 1, FRAMES):
        side = round(144 * growth**part)
        x, y = (round(256 + d * (part - 0.5) - side / 2) for d in (dx, dy))
        seen = picture[..., y : y + side, x : x + side]
        frames.append(F.interpolate(seen, size, mode="bilinear", antialias=True)[0])
    return (rearrange(torch.stack(frames), "t c h w -> t h w c").clamp(0, 1) * 255).round().to(torch.uint8)


@torch.inference_mode()
def answers(name: str, label: str) -> list[str]:
    """The first answer of a model on each scene."""
    entry = STORE.find(name)
    sampling = entry.spec.sampling
    clips = torch.stack([cut(label, seed, entry.spec.preprocessing.width) for seed in range(SCENES)])
    clips = clips[:, :: FRAMES // sampling.frames_per_window]
    logits = entry.load()(as_units(clips, sampling.frames_per_unit))
    return [entry.spec.labels[k] for k in logits.argmax(dim=1)]


def test_the_three_families_are_embedded() -> None:
    assert {spec.name: spec.family for spec in STORE.specs()} == {
        "camera-motion": "factorised",
        "camera-motion-frame": "vit",
        "camera-motion-stack": "channel_stack",
    }


@pytest.mark.parametrize("name", NAMES)
def test_an_embedded_model_is_small_and_has_a_card_with_its_figures(name: str) -> None:
    folder = STORE.find(name).folder
    assert (folder / "weights.safetensors").stat().st_size <= WEIGHTS_MAX_BYTES
    card, spec = (folder / "CARD.md").read_text(), STORE.find(name).spec
    assert spec.accuracy
    for figure in spec.accuracy:
        assert f"{figure.dataset}: {figure.top1:.3f}" in card


@pytest.mark.parametrize("label", CUTS)
def test_camera_motion_knows_plain_moves(label: str) -> None:
    told = answers("camera-motion", label)
    assert told.count(label) >= SCENES - 1, told


@pytest.mark.parametrize("label", ["pan_left", "pan_right"])
def test_the_stack_knows_a_pan(label: str) -> None:
    told = answers("camera-motion-stack", label)
    assert told.count(label) >= SCENES - 1, told


@torch.inference_mode()
def test_single_frames_say_nothing_of_direction() -> None:
    entry = STORE.find("camera-motion-frame")
    model = entry.load()
    clip = cut("pan_left", 0, entry.spec.preprocessing.width)[::4]
    forth, back = (model(as_units(frames[None], 1)) for frames in (clip, clip.flip(0)))
    torch.testing.assert_close(forth, back, atol=1e-4, rtol=1e-4)
