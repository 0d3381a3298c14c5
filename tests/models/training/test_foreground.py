"""What moves before the simulated camera by itself, and the screens that it films."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.models.training.test_trainer import SAMPLING, SIZE, blobs
from tubelet.models.training.simulation.camera_path import LABELS
from tubelet.models.training.simulation.dataset import MOVING_SHARE, SimulatedMoves
from tubelet.models.training.simulation.foreground import BUSY, PLAIN, Foreground, draw_object
from tubelet.models.training.simulation.screens import draw_screens
from tubelet.models.training.simulation.sources import Source, choose_frames

PART = np.linspace(0, 1, 8)
PICTURE = blobs(np.random.default_rng(3), 160, 220)
LIVELY = replace(PLAIN, lively_share=1.0)


def camera(foreground: Foreground) -> SimulatedMoves:
    still, movie = PICTURE[None], np.stack([PICTURE] * 40)
    sources = [Source("still", False, lambda: still), Source("movie", True, lambda: movie)]
    return SimulatedMoves(sources, SAMPLING, SIZE, seed=1, batches=2, foreground=foreground)


def drawn(look: Foreground, seed: int) -> torch.Tensor:
    """The places that an object covers in a white picture, frame by frame: -> (T, H, W) bool."""
    clip = torch.full((len(PART), 3, SIZE, SIZE), 2.0)
    draw_object(clip, PICTURE, PART, look, np.random.default_rng(seed))
    return (clip < 2).any(dim=1)


def middles(covered: torch.Tensor) -> np.ndarray:
    """The middle of the covered places of each frame, pixels: -> (T, 2)."""
    return np.array([np.argwhere(each.numpy()).mean(axis=0) for each in covered])


def in_full_view(covered: torch.Tensor) -> bool:
    """Whether an object is inside the picture in every frame."""
    border = covered[:, 0] | covered[:, -1] | covered[:, :, 0] | covered[:, :, -1]
    return bool(covered.flatten(1).any(dim=1).all()) and not border.any()


def test_a_plain_object_goes_straight_and_a_lively_one_does_not() -> None:
    def bends(look: Foreground) -> list[float]:
        """How far objects stray from a straight line, pixels."""
        seen = [covered for seed in range(150) if in_full_view(covered := drawn(look, seed))]
        assert len(seen) >= 10
        return [float(np.abs(np.diff(middles(each), n=2, axis=0)).max()) for each in seen]

    assert max(bends(PLAIN)) < 1
    assert np.mean(np.array(bends(LIVELY)) > 1) > 0.15


def test_some_lively_objects_stay_in_place_and_change_their_looks() -> None:
    changed = 0
    for seed in range(40):
        clip = torch.full((len(PART), 3, SIZE, SIZE), 2.0)
        draw_object(clip, PICTURE, PART, LIVELY, np.random.default_rng(seed))
        covered = (clip < 2).any(dim=1)
        if covered[0].any() and (covered == covered[0]).all():
            changed += not torch.allclose(clip, clip[:1].expand_as(clip), atol=0.05)
    assert changed >= 8


def test_a_busy_foreground_has_several_larger_objects() -> None:
    assert BUSY.objects_max > PLAIN.objects_max
    area = {
        look: float(np.mean([drawn(look, seed).float().mean() for seed in range(100)]))
        for look in (PLAIN, BUSY)
    }
    assert area[BUSY] > 1.2 * area[PLAIN]


@pytest.mark.parametrize(
    ("label", "foreground", "share"),
    [("static", PLAIN, MOVING_SHARE), ("static", BUSY, 0.7), ("pan_left", BUSY, MOVING_SHARE)],
)
def test_static_windows_show_more_clips(label: str, foreground: Foreground, share: float) -> None:
    assert label in LABELS
    films, rng = camera(foreground), np.random.default_rng(0)
    moving = np.mean([films.draw_source(rng, label).moving for _ in range(2000)])
    assert moving == pytest.approx(share, abs=0.04)


def test_a_batch_before_a_busy_foreground_is_a_function_of_its_number() -> None:
    first, again, plain = (camera(look)[1] for look in (BUSY, BUSY, PLAIN))
    assert torch.equal(first.units, again.units)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.units, plain.units)


def test_screens_are_filmed_as_real_clips_would_be() -> None:
    found = draw_screens(20, seed=4)
    assert [each.moving for each in found] == [False, True] * 10
    again = draw_screens(20, seed=4)
    assert all(np.array_equal(a.read(), b.read()) for a, b in zip(found, again, strict=True))
    assert not np.array_equal(found[0].read(), draw_screens(20, seed=5)[0].read())
    clips = [each.read() for each in found if each.moving]
    assert np.mean([(clip[0] != clip[-1]).any() for clip in clips]) > 0.7
    # The camera's own judge finds that it stands still where it sees enough.
    assert sum(choose_frames(clip)[1] for clip in clips) >= 5
