"""The study of training data: its design, its windows, runs that stop and resume, processes, results."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tubelet.models.errors import CannotTrain
from tubelet.models.training.simulation.camera_path import LABELS
from tubelet.models.training.simulation.sources import Source
from tubelet.models.training.study.design import ARCHITECTURES, BY_HEADS, MODELS, Design, Run, with_sizes
from tubelet.models.training.study.results import Result, best_rates, read_results, write_result
from tubelet.models.training.study.run import Order, batches, start, train_run
from tubelet.models.training.study.windows import count_windows, is_rendered, read_windows, render
from tubelet.models.training.study.workers import Job, train_all

DESIGN = Design(
    sizes=(20, 40),
    head_sizes=(20,),
    repeated_to=20,
    seeds=2,
    steps=6,
    batch_size=8,
    checkpoint_steps=2,
    search_windows=20,
    validation_windows=20,
    test_windows=30,
)
RUN = Run("factorised", 20, 1)


class Stopped(Exception):
    """Ends a run in the middle."""


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """One still of soft random texture."""
    coarse = np.random.default_rng(0).integers(0, 256, (23, 29, 3), np.uint8)
    picture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[None]
    return [Source("still.mp4", moving=False, read=lambda: picture)]


@pytest.fixture(scope="module")
def folder(sources: list[Source], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose windows are rendered."""
    folder = tmp_path_factory.mktemp("study")
    for part, count in count_windows(DESIGN).items():
        render(part, count, sources, folder / "windows", lambda _: None)
    return folder


def test_models_are_of_like_size_and_heads_do_not_change_it() -> None:
    counts = {}
    for name in MODELS:
        model = start(Run(name, 300, 0), 1e-3, 10).model
        counts[name] = sum(each.numel() for each in model.parameters())
    assert max(counts.values()) <= 300_000
    assert min(counts.values()) > 0.8 * max(counts.values())
    assert len({counts[name] for name in BY_HEADS.values()}) == 1


def test_the_first_runs_are_every_family_at_every_size_with_one_seed() -> None:
    design = Design()
    runs = design.study_runs()
    first = runs[: len(ARCHITECTURES) * len(design.sizes)]
    assert {(run.model, run.windows) for run in first} == {
        (model, size) for model in ARCHITECTURES for size in design.sizes
    }
    assert {run.seed for run in first} == {0}
    assert len(set(runs)) == len(runs)
    for size in design.head_sizes:
        for model in BY_HEADS.values():
            seeds = [run.seed for run in runs if (run.model, run.windows) == (model, size)]
            assert seeds == ([0, 1, 2] if size <= 3_000 else [0])


def test_sets_of_a_seed_are_nested_and_those_of_two_seeds_do_not_overlap() -> None:
    design = Design()
    shown = {
        (size, seed): {
            int(number)
            for step in range(size // 4)
            for number in Order(design.offset(seed), size, seed).batch(step, 4)
        }
        for size in (300, 3_000)
        for seed in (0, 1, 2)
    }
    assert all(len(numbers) == size for (size, _), numbers in shown.items())
    assert shown[300, 1] < shown[3_000, 1]
    assert not shown[3_000, 0] & shown[3_000, 1]
    assert max(shown[3_000, 2]) < design.training_windows


def test_an_epoch_shows_each_window_once_whatever_the_batch() -> None:
    order = Order(first=100, windows=10, seed=3)
    shown = np.concatenate([order.batch(step, 4) for step in range(5)])
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(100, 110))
    assert shown[:10].tolist() != shown[10:].tolist()


def test_a_smaller_study_renders_fewer_windows() -> None:
    assert with_sizes(Design(), (1_000, 300)).training_windows < Design().training_windows
    assert with_sizes(Design(), (1_000, 300)).sizes == (300, 1_000)


def test_fewer_windows_are_the_first_of_more(sources: list[Source], folder: Path, tmp_path: Path) -> None:
    render("training", 30, sources, tmp_path, lambda _: None)
    few, many = read_windows("training", tmp_path), read_windows("training", folder / "windows")
    assert few.pixels.shape == (30, 16, 32, 32, 3)
    assert np.array_equal(few.pixels, many.pixels[:30])
    assert torch.equal(few.labels, many.labels[:30])
    assert torch.bincount(many.labels[:20]).tolist() == [2] * len(LABELS)
    assert not np.array_equal(few.pixels[:20], read_windows("test", folder / "windows").pixels[:20])


def test_an_interrupted_rendering_does_not_count(sources: list[Source], tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        render("test", 40, sources, tmp_path, stop)
    assert not is_rendered("test", 40, tmp_path)
    render("test", 20, sources, tmp_path, lambda _: None)
    assert is_rendered("test", 20, tmp_path)
    assert not is_rendered("test", 40, tmp_path)


def test_units_are_the_frames_in_their_order(folder: Path) -> None:
    windows = read_windows("training", folder / "windows")
    units = windows.units(np.array([3, 1]), 4)
    assert units.shape == (2, 4, 4, 32, 32, 3)
    assert np.array_equal(units[1].flatten(0, 1), windows.pixels[1])


@pytest.mark.parametrize("model", ["factorised", "r2plus1d"])
def test_a_stopped_run_ends_with_the_answers_of_a_whole_one(model: str, folder: Path, tmp_path: Path) -> None:
    run = Run(model, 20, 1)
    (tmp_path / "windows").symlink_to(folder / "windows")
    whole = train_run(run, 1e-3, DESIGN, tmp_path, lambda _: None)
    for last in (3, 5):  # after the checkpoints of steps 2 and 4
        with pytest.raises(Stopped):
            train_run(run, 1e-3, DESIGN, tmp_path, stop_at(last))
    begun = []
    resumed = train_run(run, 1e-3, DESIGN, tmp_path, begun.append)
    assert begun == [4, 5, 6]
    assert resumed.answers == whole.answers
    assert resumed.validation_accuracy == whole.validation_accuracy
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_checkpoint_of_another_design_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "windows").symlink_to(folder / "windows")
    with pytest.raises(Stopped):
        train_run(RUN, 1e-3, DESIGN, tmp_path, stop_at(5))
    begun: list[int] = []
    train_run(RUN, 1e-3, replace(DESIGN, steps=3), tmp_path, begun.append)
    assert begun == [0, 1, 2, 3]


def stop_at(last: int) -> Callable[[int], None]:
    """Return a listener that ends a run after the step ``last``."""

    def stop(step: int) -> None:
        if step == last:
            raise Stopped

    return stop


def test_a_run_learns_the_windows_that_it_sees(folder: Path) -> None:
    windows = read_windows("training", folder / "windows")
    design = replace(DESIGN, steps=20, batch_size=20)
    trainer = start(RUN, 2e-3, design.steps)
    right = [trainer.train_step(batch)[2] for batch in batches(RUN, design, windows, 0, design.steps)]
    assert right[0] < 0.4
    assert right[-1] > 0.9


class Heard:
    """What workers told."""

    def __init__(self) -> None:
        self.steps: list[tuple[Run, int]] = []
        self.results: list[Result] = []

    def on_steps(self, run: Run, steps: int) -> None:
        self.steps.append((run, steps))

    def on_result(self, result: Result) -> None:
        self.results.append(result)


def test_processes_train_runs_and_one_that_fails_ends_the_study(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "windows").symlink_to(folder / "windows")
    good, bad = RUN, Run("factorised", 20, 9)  # no windows are rendered for this seed
    heard = Heard()
    with pytest.raises(CannotTrain, match=f"{bad.name} ended without a result, with exit status 1"):
        train_all([Job(good, 1e-3), Job(bad, 1e-3)], DESIGN, tmp_path, 1, heard)
    (measured,) = heard.results
    assert read_results([good, bad], DESIGN, measured.digest, tmp_path) == {good: measured}
    assert [steps for run, steps in heard.steps if run == good] == [*range(7)]
    assert len(measured.answers) == DESIGN.test_windows


def result(run: Run, validation_accuracy: float = 0.5) -> Result:
    """Return a result without training."""
    steps = DESIGN.steps_of(run)
    return Result(run, run.rate or 1e-3, steps, 1000, 1.0, validation_accuracy, 0.5, [0], "abc")


@pytest.mark.parametrize("changed", [{"digest": "other"}, {"steps": 7}])
def test_results_of_another_study_are_refused(changed: dict[str, object], tmp_path: Path) -> None:
    write_result(replace(result(RUN), **changed), tmp_path)
    with pytest.raises(CannotTrain, match="use another folder, or remove the results"):
        read_results([RUN], DESIGN, "abc", tmp_path)


def test_rates_are_chosen_by_validation_for_each_family() -> None:
    best = {"factorised": 1e-3, "channel_stack": 5e-4, "r2plus1d": 4e-3}
    runs = DESIGN.search_runs()
    results = {run: result(run, 0.9 if run.rate == best[run.model] else 0.4) for run in runs}
    assert best_rates(results, DESIGN) == best
    assert {DESIGN.steps_of(run) for run in runs} == {2}
