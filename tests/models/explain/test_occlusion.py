"""Occlusion finds what a model's answer hangs on, within its runs, and counts what it leaves out."""

import pytest
import torch
from torch import Tensor

from tests.support.explained import GRIDS, LABELS, TRANSFORMERS, explained, random_window
from tests.support.models import PREPROCESSING, SIZE
from tubelet.models.explain.explain import explain
from tubelet.models.explain.explanation import Question
from tubelet.models.explain.occlusion import MAX_RUNS, Occluded, Parts, occlusion, parts_of_frames
from tubelet.models.video_model import AveragingModel, VideoModel


class BrightSpot(AveragingModel):
    """A model whose first logit is the brightness of four pixels of one frame, summed over units."""

    def __init__(self) -> None:
        super().__init__(PREPROCESSING)
        self.head = torch.nn.Linear(1, 2, bias=False)
        self.head.weight.data = torch.tensor([[1.0], [-1.0]])
        self.units: list[int] = []

    def encode(self, units: Tensor) -> Tensor:
        self.units.append(len(units))
        return units[:, 1, 10:12, 20:22].float().mean(dim=(1, 2, 3))[:, None]


def run(
    model: VideoModel,
    window: Tensor,
    parts: Parts,
    label: int = 0,
    max_runs: int = MAX_RUNS,
    background: Tensor | None = None,
) -> Occluded:
    steps = occlusion(model, window, parts, lambda logits: logits[..., label], background, max_runs)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def spot_window(units: int) -> Tensor:
    """Return dark units of two frames, in the third of which the spot is bright, in the second less so."""
    window = torch.zeros(units, 2, SIZE, SIZE, 3, dtype=torch.uint8)
    window[1, 1, 10:12, 20:22] = 100
    window[2, 1, 10:12, 20:22] = 200
    return window


def test_finds_the_place_and_the_time() -> None:
    found = run(BrightSpot(), spot_window(5), Parts(2, 4, 4))
    wanted = torch.zeros(10, 4, 4, dtype=torch.float64)
    wanted[3, 1, 2], wanted[5, 1, 2] = 100 / 5, 200 / 5
    torch.testing.assert_close(found.mass.patches, wanted)
    assert (found.runs, found.steps_left_out) == (10 + 2 * 16, 0)


def test_what_raises_the_score_when_it_is_gone_has_no_share() -> None:
    found = run(BrightSpot(), spot_window(5), Parts(2, 4, 4), label=1)
    assert found.mass.patches.count_nonzero() == 0


def test_cells_are_at_most_seven_a_side_and_cover_the_patches() -> None:
    found = run(BrightSpot(), spot_window(5), Parts(2, 16, 8))
    # Rows 4 and 5 of 16, two pixels each, are one of seven cells; columns 5 of 8, of four pixels, is one.
    shares = found.mass.patches[5] / found.mass.patches[5].sum()
    assert {tuple(place) for place in shares.nonzero().tolist()} == {(5, 5), (6, 5)}
    assert found.runs == 10 + 2 * 49


@pytest.mark.parametrize(("max_runs", "looked_at"), [(0, 0), (25, 0), (26, 1), (41, 1), (42, 2), (1000, 2)])
def test_runs_are_limited_and_what_is_left_out_is_counted(max_runs: int, looked_at: int) -> None:
    model = BrightSpot()
    found = run(model, spot_window(5), Parts(2, 4, 4), max_runs=max_runs)
    assert found.runs == 10 + 16 * looked_at == sum(model.units) - 5  # 5 units for the whole window
    assert found.steps_left_out == 2 - looked_at
    later, sooner = found.mass.patches[5], found.mass.patches[3]
    assert later.count_nonzero() == (1 if looked_at else 16)
    assert sooner.count_nonzero() == (1 if looked_at == 2 else 16)
    assert (float(later.sum()), float(sooner.sum())) == pytest.approx((40, 20))


def test_another_background_takes_the_place_of_the_median() -> None:
    bright = torch.full((SIZE, SIZE, 3), 250, dtype=torch.uint8)
    found = run(BrightSpot(), spot_window(5), Parts(2, 4, 4), background=bright)
    assert found.mass.patches.count_nonzero() == 0


@pytest.mark.parametrize("case", [*TRANSFORMERS, "framewise", "r2plus1d", "torchvision, clips"])
@torch.inference_mode()
def test_steps_of_every_family_lose_what_whole_windows_lose(case: str) -> None:
    model, _ = explained(case)
    window = random_window(case)
    steps, rows, columns = GRIDS[case]
    median = window.flatten(0, 1).median(dim=0).values
    changed = []
    for step in range(steps):
        frames = window.clone().flatten(0, 1)
        frames.unflatten(0, (steps, -1))[step] = median
        changed.append(frames.view_as(window))
    losses = (model(window[None]) - model(torch.stack(changed))).clamp_min(0).double()
    label = int(losses.sum(dim=0).argmax())
    parts = Parts(steps // len(window), rows, columns)
    found = run(model, window, parts, label, max_runs=0)
    lost = found.mass.patches.sum(dim=(1, 2))
    torch.testing.assert_close(lost, losses[:, label], atol=1e-5, rtol=1e-3)
    assert lost.max() > 1e-4
    assert (found.runs, found.steps_left_out) == (steps, int((lost > 0).sum()))


@pytest.mark.parametrize("case", ["torchvision, frames", "framewise", "r2plus1d", "factorised"])
def test_explanations_say_what_occlusion_did(case: str) -> None:
    model, spec = explained(case)
    explanation = explain(model, spec, random_window(case), Question("occlusion", LABELS[2]))
    assert explanation.map.shape == GRIDS[case]
    assert GRIDS[case][0] <= explanation.runs <= MAX_RUNS
    assert explanation.steps_left_out == 0


def test_units_of_other_families_are_cut_into_at_most_eight_steps() -> None:
    steps = {frames: parts_of_frames(frames).steps for frames in (1, 2, 7, 8, 16, 12, 32, 17)}
    assert steps == {1: 1, 2: 2, 7: 7, 8: 8, 16: 8, 12: 6, 32: 8, 17: 1}
