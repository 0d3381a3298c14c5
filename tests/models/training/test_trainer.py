"""Training end to end on synthetic clips: sources, batches, steps, a stop and a resumed run."""

from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch

from tubelet.models.families.factorised import Factorised, FactorisedDims
from tubelet.models.spec import Preprocessing, Sampling
from tubelet.models.training.init import drifting_gratings_, waves
from tubelet.models.training.losses import FlowHeads
from tubelet.models.training.samples import Batch
from tubelet.models.training.simulation.camera_path import LABELS
from tubelet.models.training.simulation.dataset import SimulatedMoves
from tubelet.models.training.simulation.sources import RATE_HZ, Source, choose_frames
from tubelet.models.training.simulation.stillness import is_still
from tubelet.models.training.trainer import Recipe, Trainer, confusion

SIZE, T, S = 32, 2, 3
SAMPLING = Sampling(T, S, window_s=2.0, stride_s=1.0, min_window_s=1.0, max_window_s=4.0)
RECIPE = Recipe(steps=6, batch_size=20, warmup_steps=2, checkpoint_steps=3, dtype=torch.float32)


def blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: soft random texture."""
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]


@pytest.fixture
def sources() -> list[Source]:
    """A still, and a clip before whose still background a square moves."""
    rng = np.random.default_rng(0)
    still, background = blobs(rng, 160, 220), blobs(rng, 170, 160)
    movie = np.stack([background] * 40)
    for number, frame in enumerate(movie):
        frame[60:90, 3 * number : 3 * number + 30] = 255
    return [
        Source("still.mp4", moving=False, read=lambda: still[None]),
        Source("movie.mp4", moving=True, read=lambda: movie),
    ]


def simulated(sources: list[Source], first: int = 0) -> list[Batch]:
    moves = SimulatedMoves(
        sources, SAMPLING, SIZE, seed=7, batches=RECIPE.steps, batch_size=RECIPE.batch_size
    )
    return [moves[index] for index in range(first, RECIPE.steps)]


def trainer(recipe: Recipe = RECIPE) -> Trainer:
    torch.manual_seed(0)
    preprocessing = Preprocessing(SIZE, SIZE, "crop", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    model = Factorised(FactorisedDims((T, 8, 8), S, 32, 1, 1, 2, 64), preprocessing, len(LABELS))
    return Trainer(model, FlowHeads(32, T, 4, 4), recipe)


def test_a_batch_is_a_function_of_its_number(sources: list[Source]) -> None:
    first, again, next_ = simulated(sources)[2], *simulated(sources, 2)[:2]
    assert first.units.shape == (20, S, T, SIZE, SIZE, 3)
    assert first.units.dtype == torch.uint8
    assert first.flow is not None
    assert first.flow.shape == (20, S * T - 1, 4)
    assert torch.equal(first.units, again.units)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.units, next_.units)


def test_every_label_is_drawn_equally_often(sources: list[Source]) -> None:
    data = simulated(sources)
    rendered = torch.cat([data[i].labels[: RECIPE.batch_size // 2] for i in range(3)])
    assert torch.bincount(rendered, minlength=len(LABELS)).tolist() == [3] * len(LABELS)


def test_a_resumed_run_ends_with_the_same_weights(sources: list[Source], tmp_path: Path) -> None:
    data = simulated(sources)
    whole = trainer()
    whole.fit(data, tmp_path / "whole.pt", tmp_path / "whole.tsv")
    stopped = trainer()
    for step in range(3):
        stopped.train_step(data[step])
    stopped.save(tmp_path / "part.pt")
    resumed = trainer()
    torch.nn.init.zeros_(next(resumed.model.parameters()))
    resumed.resume(tmp_path / "part.pt")
    assert resumed.step == 3
    resumed.fit(cycle(data[3:]), tmp_path / "part.pt", tmp_path / "part.tsv")
    for name, wanted in whole.average.state_dict().items():
        assert torch.equal(resumed.average.state_dict()[name], wanted), name
    start = trainer().average.state_dict()
    assert not torch.equal(start["head.weight"], whole.average.state_dict()["head.weight"])
    lines = (tmp_path / "whole.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["1", "2", "3", "4", "5", "6"]
    assert (tmp_path / "part.tsv").read_text().splitlines() == lines[3:]


def test_a_resumed_run_adds_to_the_cost(sources: list[Source], tmp_path: Path) -> None:
    data, first, second = simulated(sources), trainer(replace(RECIPE, steps=3)), trainer()
    first.fit(data, tmp_path / "run.pt", tmp_path / "run.tsv")
    second.resume(tmp_path / "run.pt")
    assert first.cost is not None
    assert second.cost == first.cost
    assert first.cost.processor_s > 0
    second.fit(data[3:], tmp_path / "run.pt", tmp_path / "run.tsv")
    assert second.cost is not None
    assert second.cost.processor_s > first.cost.processor_s
    before_costs_were_kept = {name: each for name, each in second.state().items() if name != "cost"}
    second.restore(before_costs_were_kept)
    second.fit(data[3:], tmp_path / "run.pt", tmp_path / "run.tsv")
    assert second.cost is None


def test_a_run_that_is_past_its_last_step_trains_no_more(sources: list[Source], tmp_path: Path) -> None:
    done = trainer(replace(RECIPE, steps=2))
    done.step = 3
    done.fit(simulated(sources), tmp_path / "last.pt", tmp_path / "log.tsv")
    assert done.step == 3


def test_steps_lower_the_loss_of_a_batch_seen_again(sources: list[Source]) -> None:
    batch, tiny = simulated(sources)[0], trainer(replace(RECIPE, steps=100, learning_rate=2e-3))
    losses = [tiny.train_step(batch)[0] for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_last_leg_starts_from_the_weights_of_the_one_before() -> None:
    recipe = replace(RECIPE, steps=30, earlier_legs=(4, 10))
    weights = {name: torch.full_like(each, 0.5) for name, each in trainer().model.state_dict().items()}
    last = trainer(recipe)
    last.start_last_leg(weights)
    assert last.step == 10
    for model in (last.model, last.average):
        assert all(torch.equal(each, weights[name]) for name, each in model.state_dict().items())


def test_each_leg_warms_up_and_falls_in_its_last_part(sources: list[Source]) -> None:
    recipe = replace(
        RECIPE, steps=26, earlier_legs=(6, 16), warmup_steps=2, decay_share=0.5, learning_rate=1.0
    )
    batch, rates = simulated(sources)[0], []
    tiny = trainer(recipe)
    for _ in range(recipe.steps):
        weights = {name: each.clone() for name, each in tiny.trained.state_dict().items()}
        tiny.train_step(batch)
        tiny.trained.load_state_dict(weights)  # such large steps would diverge
        rates.append(tiny.optimiser.param_groups[0]["lr"])
    for start, end in ((0, 6), (6, 16), (16, 26)):
        leg = rates[start:end]
        middle = len(leg) // 2
        assert leg[:2] == [0.5, 1.0]
        assert set(leg[1:middle]) == {1.0}
        assert all(later < earlier for earlier, later in zip(leg[middle:], leg[middle + 1 :], strict=False))
        assert leg[-1] < 0.3


def test_the_loss_of_labels_is_smoothed_as_the_recipe_says(sources: list[Source]) -> None:
    batch = simulated(sources)[0]
    sharp, smooth = (
        trainer(replace(RECIPE, label_smoothing=share)).train_step(batch)[0] for share in (0.0, 0.3)
    )
    logits = trainer().model(batch.units)
    for found, share in ((sharp, 0.0), (smooth, 0.3)):
        chances = logits.log_softmax(dim=1)
        own = chances[torch.arange(len(batch.labels)), batch.labels]
        wanted = -((1 - share) * own + share * chances.mean(dim=1)).mean()
        assert found == pytest.approx(wanted.item(), abs=1e-4)


def test_labels_alone_train_without_a_flow(sources: list[Source]) -> None:
    batch = replace(simulated(sources)[0], flow=None)
    tiny = trainer(replace(RECIPE, steps=100, learning_rate=2e-3))
    losses = [tiny.train_step(batch) for _ in range(40)]
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert {flow for _, flow, _ in losses} == {0.0}


def test_confusion_counts_every_window_once(sources: list[Source]) -> None:
    data = simulated(sources, RECIPE.steps - 2)
    counts = confusion(trainer().average, data, len(LABELS))
    truth = torch.cat([data[0].labels, data[1].labels])
    assert counts.sum(dim=1).tolist() == torch.bincount(truth, minlength=len(LABELS)).tolist()


def test_stillness_ignores_moving_objects() -> None:
    rng = np.random.default_rng(1)
    scene = blobs(rng, 160, 400)
    scene = np.clip(scene + rng.integers(-20, 20, scene.shape), 0, 255).astype(np.uint8)
    frames = np.stack([scene[:, 50:290]] * 48)
    for number, frame in enumerate(frames):
        frame[40:110, 3 * number : 3 * number + 60] = scene[40:110, 330:390]
    assert is_still(frames)
    assert not is_still(np.stack([scene[:, number : number + 240] for number in range(48)]))


def test_a_camera_that_moves_gives_single_pictures_a_second_apart() -> None:
    scene = blobs(np.random.default_rng(1), 160, 400)
    panned = np.stack([scene[:, number : number + 240] for number in range(48)])
    frames, moving = choose_frames(panned)
    assert not moving
    assert np.array_equal(frames, panned[[0, RATE_HZ, 2 * RATE_HZ]])


def test_empty_pictures_are_not_filmed() -> None:
    scene = blobs(np.random.default_rng(1), 160, 240)
    frames, moving = choose_frames(np.stack([np.full_like(scene, 90), scene])[[0] * RATE_HZ + [1] * 5])
    assert not moving
    assert np.array_equal(frames, scene[None])
    pale = (scene // 255).astype(np.uint8)
    assert len(choose_frames(np.stack([pale] * 40))[0]) == 0


def test_gratings_tell_directions_apart() -> None:
    proj = torch.nn.Conv3d(3, 64, (4, 8, 8), (4, 8, 8))
    drifting_gratings_(proj, 4, torch.Generator().manual_seed(0))
    picture = torch.from_numpy(blobs(np.random.default_rng(2), 64, 64)).permute(2, 0, 1) / 255 - 0.5
    right = torch.stack([picture.roll(2 * frame, dims=2) for frame in range(4)], dim=1)[None]
    energy = [proj(clip).square().mean(dim=(0, 2, 3, 4)) for clip in (right, right.flip(2))]
    # Some filters answer to one direction much more than to the other, and as many the other way round.
    ratio = (energy[0] / energy[1]).log2()
    assert (ratio > 0.7).sum() > 5
    assert (ratio < -0.7).sum() > 5
    flat = proj(torch.ones(1, 3, 4, 8, 8)) - proj(torch.zeros(1, 3, 4, 8, 8))
    assert flat.abs().max() < 1e-4


def test_positions_are_all_different() -> None:
    rows = waves(6, 80)
    apart = torch.cdist(rows, rows) + 10 * torch.eye(6)
    assert apart.min() > 1
