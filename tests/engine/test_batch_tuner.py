"""Tests of the choice of the batch size from the costs of batches."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tubelet.models.repository.repository import ModelStore
from tubelet.models.spec import Preprocessing, Sampling
from tubelet.service.engine.batch_tuner import BatchCost, BatchTuner, BatchTuning, is_disturbed, largest_batch


def tuned(cost_s: Callable[[int, int], float], largest: int) -> tuple[BatchTuning, list[int]]:
    """Return the tuning for batches that take ``cost_s(size, number of the batch)``, and the sizes measured.

    The wall time of a batch is twice its processor time.
    """
    asked: list[int] = []

    def measure(size: int) -> BatchCost:
        asked.append(size)
        compute_s = cost_s(size, len(asked))
        return BatchCost(compute_s, 2 * compute_s)

    return BatchTuner(largest).run(measure), asked


def tuned_by_table(seconds: dict[int, float], largest: int) -> tuple[BatchTuning, list[int]]:
    return tuned(lambda size, number: seconds[size], largest)


def test_size_grows_while_units_get_cheaper() -> None:
    tuning, asked = tuned_by_table({1: 0.020, 2: 0.024, 4: 0.032, 8: 0.060, 16: 0.120, 32: 0.200}, 16)
    assert tuning == BatchTuning(max_size=8, item_s=0.120 / 8, preferred_size=4, preferred_s=0.064)
    assert asked == [1, *3 * [1, 2, 4, 8, 16]], "the first batch is not counted"


def test_a_small_model_is_measured_in_more_rounds() -> None:
    tuning, asked = tuned_by_table({1: 0.001, 2: 0.001, 4: 0.001}, 4)
    assert tuning.max_size == 4
    assert 0.5 <= 0.001 * len(asked) <= 0.6


def test_small_batches_do_not_win_by_fitting_between_disturbances() -> None:
    """Every 5 ms other programs take the caches, and filling them again costs 2 ms."""
    passed_s = 0.0

    def cost_s(size: int, number: int) -> float:
        nonlocal passed_s
        compute_s = 0.0006 + 0.00034 * size
        disturbances = (passed_s + compute_s) // 0.005 - passed_s // 0.005
        passed_s += compute_s
        return compute_s + 0.002 * disturbances

    assert tuned(cost_s, 32)[0].max_size >= 16


def test_a_disturbed_first_round_does_not_end_the_search() -> None:
    """In the first round, each size above 1 costs five times what it should."""
    tuning, asked = tuned(lambda size, number: 0.05 * (5 if number < 5 and size > 1 else 1), 16)
    assert tuning == BatchTuning(16, 0.1 / 16, preferred_size=16, preferred_s=0.1)
    assert asked == [1, 1, 2, 4, 1, 2, 4, 8, 16, 1, 2, 4, 8, 16]


def test_a_long_disturbance_does_not_make_batches_small() -> None:
    """From the fourth batch on, for more than three rounds, batches cost twice what they should."""
    assert tuned(lambda size, n: (0.004 + 0.006 * size) * (2 if 3 < n <= 16 else 1), 32)[0].max_size == 16


def test_sizes_are_compared_by_processor_time_alone() -> None:
    """During large batches, another program has the core: their wall time grows, not their processor time."""

    def measure(size: int) -> BatchCost:
        compute_s = 0.010 + 0.001 * size
        return BatchCost(compute_s, compute_s * size)

    tuning = BatchTuner(8).run(measure)
    assert (tuning.max_size, tuning.preferred_s) == (8, pytest.approx(0.018 * 8))


def test_budget_holds_for_a_model_that_large_batches_slow_down() -> None:
    tuning, asked = tuned_by_table({1: 0.02, 2: 0.04, 4: 0.1, 8: 0.2}, 64)
    assert tuning == BatchTuning(max_size=1, item_s=0.04, preferred_size=1, preferred_s=0.04)
    assert sum({1: 0.02, 2: 0.04, 4: 0.1}[size] for size in asked) <= 1.5 + 0.02


def test_a_later_run_uses_the_samples_of_earlier_runs() -> None:
    """In each run, the batches of one size are disturbed, another size each time."""
    tuner = BatchTuner(8)
    for disturbed, expected in ((8, 4), (4, 8), (1, 8)):

        def measure(size: int, disturbed: int = disturbed) -> BatchCost:
            compute_s = (0.010 + 0.010 * size) * (2 if size == disturbed else 1)
            return BatchCost(compute_s, compute_s)

        assert tuner.run(measure).max_size == expected


def test_one_slow_size_does_not_end_the_search() -> None:
    assert tuned_by_table({1: 0.010, 2: 0.021, 4: 0.030, 8: 0.062, 16: 0.120}, 16)[0].max_size == 4


def test_size_grows_up_to_the_limit() -> None:
    assert tuned_by_table({1: 0.01, 2: 0.01, 4: 0.01, 6: 0.01}, 6)[0].max_size == 6


def test_a_slow_model_is_measured_once() -> None:
    tuning, asked = tuned_by_table({1: 1.0, 2: 1.0}, 64)
    assert tuning == BatchTuning(max_size=1, item_s=2.0, preferred_size=1, preferred_s=2.0)
    assert asked == [1, 1]


def test_batches_expected_to_take_over_half_a_second_are_not_measured() -> None:
    tuning, asked = tuned_by_table({1: 0.2, 2: 0.201, 4: 0.3}, 64)
    assert tuning.max_size == 4
    assert 8 not in asked, "twice 0.3 s"


@pytest.mark.parametrize(
    ("compute_s", "wall_s", "busy_s", "expected"),
    [
        pytest.param(1.0, 1.0, 1.0, False, id="alone"),
        pytest.param(1.0, 1.05, 1.2, False, id="hardly anything else runs"),
        pytest.param(1.0, 1.0, 2.0, True, id="another program on the other core"),
        pytest.param(1.0, 1.5, 1.0, True, id="kept from its core by what the machine does not show"),
        pytest.param(1.0, 2.0, 4.0, True, id="two others on each core"),
        pytest.param(1.0, 1.0, 0.98, False, id="coarse counts of busy time"),
    ],
)
def test_disturbed_measurements_are_recognised(
    compute_s: float, wall_s: float, busy_s: float, expected: bool
) -> None:
    assert is_disturbed(BatchCost(compute_s, wall_s), busy_s, cores=2) is expected


def test_one_busy_core_of_many_is_no_disturbance() -> None:
    assert not is_disturbed(BatchCost(1.0, 1.0), busy_s=2.0, cores=64)


@pytest.mark.parametrize(
    ("frames", "side", "device", "largest"),
    [
        (2, 224, "cpu", 32),
        (2, 224, "cuda", 128),
        (16, 224, "cuda", 55),
        (32, 512, "cpu", 5),
        (64, 1024, "cpu", 1),
    ],
)
def test_large_units_limit_the_batch_size(frames: int, side: int, device: str, largest: int) -> None:
    spec = replace(
        ModelStore().find("camera-motion").spec,
        sampling=Sampling(frames, 1, 1.0, 1.0, 1.0, 1.0),
        preprocessing=Preprocessing(side, side, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )
    assert largest_batch(spec, device) == largest
