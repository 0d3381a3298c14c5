"""The choice of the batch size, by the cost of batches."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tubelet.models.repository.repository import ModelStore
from tubelet.models.spec import Preprocessing, Sampling
from tubelet.service.engine.batch_tuner import BatchCost, BatchTuner, BatchTuning, is_disturbed, largest_batch


def tuned(cost_s: Callable[[int, int], float], largest: int) -> tuple[BatchTuning, list[int]]:
    """The tuning, and the sizes measured, where ``cost_s`` knows the size and the number of the batch.

    The wall time of a batch is twice its processor time.
    """
    asked: list[int] = []

    def measure(size: int) -> BatchCost:
        asked.append(size)
        compute_s = cost_s(size, len(asked))
        return BatchCost(compute_s, 2 * compute_s)

    return BatchTuner(largest).run(measure), asked


def from_table(seconds: dict[int, float], largest: int) -> tuple[BatchTuning, list[int]]:
    return tuned(lambda size, number: seconds[size], largest)


def test_it_grows_while_units_get_cheaper() -> None:
    tuning, asked = from_table({1: 0.020, 2: 0.024, 4: 0.032, 8: 0.060, 16: 0.120, 32: 0.200}, 16)
    assert tuning == BatchTuning(max_size=8, unit_s=0.120 / 8, preferred_size=4, preferred_s=0.064)
    assert asked == [1, *3 * [1, 2, 4, 8, 16]], "the first batch of all does not count"


def test_a_small_model_is_measured_in_more_rounds() -> None:
    tuning, asked = from_table({1: 0.001, 2: 0.001, 4: 0.001}, 4)
    assert tuning.max_size == 4
    assert 0.5 <= 0.001 * len(asked) <= 0.6


def test_small_batches_do_not_slip_through_between_disturbances() -> None:
    """Every 5 ms other programs have the caches, and to fill them again costs 2 ms."""
    passed_s = 0.0

    def cost_s(size: int, number: int) -> float:
        nonlocal passed_s
        compute_s = 0.0006 + 0.00034 * size
        disturbances = (passed_s + compute_s) // 0.005 - passed_s // 0.005
        passed_s += compute_s
        return compute_s + 0.002 * disturbances

    assert tuned(cost_s, 32)[0].max_size >= 16


def test_a_disturbance_does_not_end_the_search() -> None:
    """As long as the first sizes are tried, each larger one costs five times what it should."""
    tuning, asked = tuned(lambda size, number: 0.05 * (5 if number < 5 and size > 1 else 1), 16)
    assert tuning == BatchTuning(16, 0.1 / 16, preferred_size=16, preferred_s=0.1)
    assert asked == [1, 1, 2, 4, 1, 2, 4, 8, 16, 1, 2, 4, 8, 16]


def test_a_longer_disturbance_does_not_make_batches_small() -> None:
    """Batches cost twice what they should from the fourth one on, for more than three rounds."""
    assert tuned(lambda size, n: (0.004 + 0.006 * size) * (2 if 3 < n <= 16 else 1), 32)[0].max_size == 16


def test_sizes_are_compared_by_processor_time_alone() -> None:
    """Another program has the core during large batches, so they take long but do not cost much."""

    def measure(size: int) -> BatchCost:
        compute_s = 0.010 + 0.001 * size
        return BatchCost(compute_s, compute_s * size)

    tuning = BatchTuner(8).run(measure)
    assert (tuning.max_size, tuning.preferred_s) == (8, pytest.approx(0.018 * 8))


def test_a_model_that_large_batches_slow_down_is_measured_for_no_longer_than_others() -> None:
    tuning, asked = from_table({1: 0.02, 2: 0.04, 4: 0.1, 8: 0.2}, 64)
    assert tuning == BatchTuning(max_size=1, unit_s=0.04, preferred_size=1, preferred_s=0.04)
    assert sum({1: 0.02, 2: 0.04, 4: 0.1}[size] for size in asked) <= 1.5 + 0.02


def test_a_later_run_knows_what_earlier_ones_measured() -> None:
    """Each run has disturbed batches of one size, at another size each time."""
    tuner = BatchTuner(8)
    for disturbed, expected in ((8, 4), (4, 8), (1, 8)):

        def measure(size: int, disturbed: int = disturbed) -> BatchCost:
            compute_s = (0.010 + 0.010 * size) * (2 if size == disturbed else 1)
            return BatchCost(compute_s, compute_s)

        assert tuner.run(measure).max_size == expected


def test_one_bump_does_not_end_the_search() -> None:
    assert from_table({1: 0.010, 2: 0.021, 4: 0.030, 8: 0.062, 16: 0.120}, 16)[0].max_size == 4


def test_it_goes_up_to_the_limit_and_not_beyond() -> None:
    assert from_table({1: 0.01, 2: 0.01, 4: 0.01, 6: 0.01}, 6)[0].max_size == 6


def test_a_slow_model_is_measured_once() -> None:
    tuning, asked = from_table({1: 1.0, 2: 1.0}, 64)
    assert tuning == BatchTuning(max_size=1, unit_s=2.0, preferred_size=1, preferred_s=2.0)
    assert asked == [1, 1]


def test_no_batch_is_expected_to_take_longer_than_half_a_second() -> None:
    tuning, asked = from_table({1: 0.2, 2: 0.201, 4: 0.3}, 64)
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
def test_which_measurements_were_disturbed(
    compute_s: float, wall_s: float, busy_s: float, expected: bool
) -> None:
    assert is_disturbed(BatchCost(compute_s, wall_s), busy_s, cores=2) is expected


def test_one_more_program_on_many_cores_is_no_disturbance() -> None:
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
def test_a_batch_of_large_units_is_small(frames: int, side: int, device: str, largest: int) -> None:
    spec = replace(
        ModelStore().find("camera-motion").spec,
        sampling=Sampling(frames, 1, 1.0, 1.0, 1.0, 1.0),
        preprocessing=Preprocessing(side, side, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )
    assert largest_batch(spec, device) == largest
