"""The simulated camera moves as its labels say: its signs on a synthetic picture, its bounds, its mirrors.

The synthetic picture is black with two white dots; where the dots go tells the move, by no code of ours.
"""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tubelet.models.training.losses import flow_at
from tubelet.models.training.simulation.camera_path import (
    LABELS,
    MAX_STILL_SHIFT,
    MAX_STILL_TREMOR,
    MIN_ROLL,
    MIN_SHAKE,
    MIN_SHIFT,
    MIN_ZOOM,
    Path,
    simulate,
    simulate_within,
)
from tubelet.models.training.simulation.degradations import degrade, degrade_before_noise
from tubelet.models.training.simulation.render import place_in_source, render_view
from tubelet.models.training.simulation.symmetries import mirrored

FRAMES, SIZE = 16, 64
HEIGHT = WIDTH = 400


def camera(**ends: float) -> Path:
    """A steady move from 0 to the values given, in sides and radians."""
    steps = np.linspace(0, 1, FRAMES)
    curves = {name: steps * ends.get(name, 0.0) for name in ("x", "y", "log_size", "roll")}
    return Path(times_s=steps * 2, **curves)


def dots(path: Path) -> NDArray[np.float64]:
    """(T, 2, 2): x and y of the red and of the green dot in pictures taken along a path, in pixels."""
    side, centre = 160.0, np.array((WIDTH / 2, HEIGHT / 2))
    affine = path.affine() * side
    affine[:, :, 2] += centre
    scene = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    for colour, (dx, dy) in enumerate(((-30, -10), (30, 10))):
        x, y = int(centre[0] + dx), int(centre[1] + dy)
        scene[0, y - 4 : y + 5, x - 4 : x + 5, colour] = 255
    pictures = render_view(scene, affine, SIZE).numpy()
    rows, columns = np.mgrid[:SIZE, :SIZE]
    found = []
    for picture in pictures:
        weights = picture[:2] / picture[:2].sum(axis=(1, 2), keepdims=True)
        found.append([((w * columns).sum(), (w * rows).sum()) for w in weights])
    return np.array(found)


@pytest.mark.parametrize(
    ("ends", "right", "down", "growth", "clockwise"),
    [
        pytest.param({"x": -0.25}, 16, 0, 1, 0, id="pan_left moves the content right"),
        pytest.param({"x": 0.25}, -16, 0, 1, 0, id="pan_right moves it left"),
        pytest.param({"y": -0.25}, 0, 16, 1, 0, id="tilt_up moves it down"),
        pytest.param({"y": 0.25}, 0, -16, 1, 0, id="tilt_down moves it up"),
        pytest.param({"log_size": -np.log(1.5)}, 0, 0, 1.5, 0, id="zoom_in makes it grow"),
        pytest.param({"log_size": np.log(1.5)}, 0, 0, 1 / 1.5, 0, id="zoom_out makes it shrink"),
        pytest.param({"roll": 0.5}, 0, 0, 1, -0.5, id="roll_cw turns it counter-clockwise"),
        pytest.param({"roll": -0.5}, 0, 0, 1, 0.5, id="roll_ccw turns it clockwise"),
    ],
)
def test_where_the_content_goes(
    ends: dict[str, float], right: float, down: float, growth: float, clockwise: float
) -> None:
    seen = dots(camera(**ends))
    middle = seen.mean(axis=1)
    np.testing.assert_allclose(middle[-1] - middle[0], (right, down), atol=0.6)
    first, last = seen[0, 1] - seen[0, 0], seen[-1, 1] - seen[-1, 0]
    assert np.hypot(*last) / np.hypot(*first) == pytest.approx(growth, rel=0.03)
    # With y down, the angle of a clockwise turn grows.
    turned = np.arctan2(last[1], last[0]) - np.arctan2(first[1], first[0])
    assert turned == pytest.approx(clockwise, abs=0.03)


@pytest.mark.parametrize("ends", [{"x": 0.2, "y": -0.1}, {"log_size": -0.5}, {"roll": 0.6}])
def test_flow_is_where_the_dots_go(ends: dict[str, float]) -> None:
    path = camera(**ends)
    seen = torch.from_numpy(dots(path) + 0.5) / SIZE - 0.5
    flow = torch.from_numpy(path.flow())
    told = flow_at(flow[:, None], seen[:-1, :, 0], seen[:-1, :, 1])
    moved = seen[1:] - seen[:-1]
    assert moved.abs().max() > 0.005
    torch.testing.assert_close(told, moved, atol=0.0015, rtol=0.1)


def labelled_paths(label: str) -> list[Path]:
    rng = np.random.default_rng(LABELS.index(label))
    return [simulate(label, window_s, FRAMES, rng) for window_s in (1.0, 2.0, 4.0) for _ in range(60)]


def whole_move(path: Path) -> NDArray[np.float64]:
    """(4,): shift x, y along the camera's first axes, change of log size, roll."""
    dx, dy = path.x[-1] - path.x[0], path.y[-1] - path.y[0]
    cos, sin = np.cos(path.roll[0]), np.sin(path.roll[0])
    return np.array(
        (
            cos * dx + sin * dy,
            -sin * dx + cos * dy,
            path.log_size[-1] - path.log_size[0],
            path.roll[-1] - path.roll[0],
        )
    )


@pytest.mark.parametrize(
    ("label", "axis", "least"),
    [
        ("pan_left", 0, -MIN_SHIFT),
        ("pan_right", 0, MIN_SHIFT),
        ("tilt_up", 1, -MIN_SHIFT),
        ("tilt_down", 1, MIN_SHIFT),
        ("zoom_in", 2, -MIN_ZOOM),
        ("zoom_out", 2, MIN_ZOOM),
        ("roll_cw", 3, MIN_ROLL),
        ("roll_ccw", 3, -MIN_ROLL),
    ],
)
def test_a_move_reaches_the_minimum_of_the_card(label: str, axis: int, least: float) -> None:
    tremor = 0.03  # sides or radians that the hand may add or take
    for path in labelled_paths(label):
        assert whole_move(path)[axis] * np.sign(least) >= abs(least) - tremor


@pytest.mark.parametrize("label", LABELS[1:])
@pytest.mark.parametrize("moving", [range(4), range(8, 12), range(4, 12), range(12, 16)])
def test_a_camera_moves_within_its_frames_and_stands_still_otherwise(label: str, moving: range) -> None:
    rng = np.random.default_rng(LABELS.index(label))
    for _ in range(20):
        path = simulate_within(label, 2.0, FRAMES, moving, rng)
        curves = np.stack((path.x, path.y, path.log_size, path.roll))
        np.testing.assert_allclose(np.diff(path.times_s), 2.0 / FRAMES)
        moved = np.abs(np.diff(curves[:, moving.start : moving.stop])).max(axis=0)
        assert (moved > 1e-4).all()
        for still in (curves[:, : moving.start], curves[:, moving.stop :]):
            assert still.size == 0 or np.ptp(still, axis=1).max() == 0
        if label == "shake":
            seen = curves[:2, moving.start : moving.stop]
            tremor = np.sqrt(((seen - seen.mean(axis=1, keepdims=True)) ** 2).sum(axis=0).mean())
            assert tremor > 0.9 * MIN_SHAKE
        else:
            axis = {"pan": 0, "tilt": 1, "zoom": 2, "roll": 3}[label.partition("_")[0]]
            least = (MIN_SHIFT, MIN_SHIFT, MIN_ZOOM, MIN_ROLL)[axis]
            assert abs(whole_move(path)[axis]) >= least - 1e-9


def test_static_stays_and_shake_shakes() -> None:
    for path in labelled_paths("static"):
        far = np.hypot(path.x - path.x[0], path.y - path.y[0]).max()
        assert far <= MAX_STILL_SHIFT + 8 * MAX_STILL_TREMOR
        assert far < MIN_SHIFT
        assert np.ptp(path.log_size) == 0
    for path in labelled_paths("shake"):
        rms = np.sqrt(np.var(path.x) + np.var(path.y))
        assert rms >= 0.95 * MIN_SHAKE
        slope = np.polyfit(np.arange(FRAMES), path.x, 1)[0] * (FRAMES - 1)
        assert abs(slope) < 0.01


@pytest.mark.parametrize("label", LABELS)
def test_the_camera_never_leaves_its_source(label: str) -> None:
    rng = np.random.default_rng(3)
    fitted = 0
    for path in labelled_paths(label):
        affine = place_in_source(path, 160, 240, rng)
        if affine is None:
            continue
        fitted += 1
        corners = affine @ np.array(((-0.5, 0.5, -0.5, 0.5), (-0.5, -0.5, 0.5, 0.5), (1, 1, 1, 1)))
        assert corners.min() >= -1e-6
        assert corners[:, 0].max() <= 239 + 1e-6
        assert corners[:, 1].max() <= 159 + 1e-6
    assert fitted > 20


MIRRORS = {"left-right": 0, "up-down": 1, "diagonal": 2, "backwards": 3}
PARTS = {"x": 0, "y": 1, "log_size": 2, "roll": 3}


@pytest.mark.parametrize("mirror", MIRRORS)
@pytest.mark.parametrize("label", ["pan_left", "tilt_down", "zoom_in", "roll_cw"])
def test_mirrored_windows_get_the_label_of_their_content(label: str, mirror: str) -> None:
    ends = {"pan_left": {"x": -0.2}, "tilt_down": {"y": 0.2}, "zoom_in": {"log_size": -0.4}}
    path = camera(**ends.get(label, {"roll": 0.4}))
    texture = np.random.default_rng(1).integers(0, 256, (50, 50, 3), np.uint8)
    scene = np.kron(texture, np.ones((8, 8, 1), np.uint8))[None]
    affine = path.affine() * 160
    affine[:, :, 2] += 200
    clip = (render_view(scene, affine, SIZE).permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    chosen = torch.zeros(1, 4, dtype=torch.bool)
    chosen[0, MIRRORS[mirror]] = True
    flow = torch.from_numpy(path.flow()).float()
    clips, labels, flows = mirrored(clip[None], torch.tensor([LABELS.index(label)]), flow[None], chosen)
    # What the mirrored pixels show: the flow that best carries each frame into the next.
    told = flows[0].mean(dim=0)
    assert carries(clips[0], flows[0]) < 0.3 * carries(clips[0], -flows[0])
    sign = {"pan": -told[0], "tilt": -told[1], "zoom": told[2], "roll": -told[3]}
    kind, _, way = LABELS[int(labels[0])].partition("_")
    assert sign[kind] * (-1 if way in ("left", "up", "out", "ccw") else 1) > 0


def carries(clip: torch.Tensor, flow: torch.Tensor) -> float:
    """How badly a flow (T - 1, 4) explains a clip (T, H, W, C): mean squared error after warping back."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pictures = clip.permute(0, 3, 1, 2).float() / 255
    moved = flow_at(flow[:, None, None], x, y)
    points = 2 * (torch.stack((x, y), dim=-1) + moved)
    back = torch.nn.functional.grid_sample(pictures[1:], points, align_corners=False)
    inside = (points.abs() < 0.95).all(dim=-1)[:, None]
    return float((((back - pictures[:-1]) ** 2) * inside).sum() / inside.sum())


def test_windows_before_noise_are_those_that_get_noise() -> None:
    grey = torch.full((64, 2, 3, 48, 48), 0.5)
    before, strength = degrade_before_noise(grey.clone(), torch.Generator().manual_seed(5))
    added = degrade(grey.clone(), torch.Generator().manual_seed(5)) - before
    found = added.std(dim=(1, 2, 3, 4))
    assert 16 < (strength > 0).sum() < 48
    # About two thirds of the windows are not compressed, which would change them, too.
    quiet, noisy = strength == 0, strength > 0.005
    assert (found[quiet] == 0).float().mean() > 0.4
    alike = (found[noisy] / strength[noisy]).sub(1).abs() < 0.05
    assert alike.float().mean() > 0.4
