"""The largest useful batch, by what batches cost."""

from dataclasses import replace

import pytest

from models.contract import Preprocessing, Sampling
from models.store import ModelStore
from service.engine.useful import BatchSizes, largest_batch, useful_batch


def measured(seconds: dict[int, float], most: int) -> tuple[BatchSizes, list[int]]:
    asked: list[int] = []

    def measure(size: int) -> float:
        asked.append(size)
        return seconds[size]

    return useful_batch(measure, most), asked


def test_it_grows_while_units_get_cheaper() -> None:
    sizes, asked = measured({1: 0.010, 2: 0.012, 4: 0.016, 8: 0.030, 16: 0.060, 32: 0.130}, 32)
    assert sizes == BatchSizes(most=8, unit_s=0.030 / 8, enough=4, enough_s=0.016)
    assert asked == [1, *3 * [1, 2, 4, 8, 16, 32]], "the first batch of all is not looked at"


def test_what_others_do_meanwhile_does_not_end_the_search() -> None:
    """As long as the first sizes are tried, each larger one takes five times as long as it should."""
    asked: list[int] = []

    def measure(size: int) -> float:
        asked.append(size)
        return 0.01 * (5 if len(asked) < 5 and size > 1 else 1)

    assert useful_batch(measure, 16) == BatchSizes(16, 0.01 / 16, enough=16, enough_s=0.01)
    assert asked == [1, 1, 2, 4, 1, 2, 4, 8, 16, 1, 2, 4, 8, 16]


def test_others_that_come_for_a_while_only_do_not_make_batches_small() -> None:
    """A machine of half the speed from the fourth batch on, for more than three rounds."""
    asked: list[int] = []

    def measure(size: int) -> float:
        asked.append(size)
        return (0.004 + 0.006 * size) * (2 if 3 < len(asked) <= 16 else 1)

    assert useful_batch(measure, 32).most == 16


def test_a_model_that_large_batches_slow_down_is_measured_for_no_longer_than_others() -> None:
    sizes, asked = measured({1: 0.01, 2: 0.02, 4: 0.05, 8: 0.1}, 64)
    assert sizes == BatchSizes(most=1, unit_s=0.01, enough=1, enough_s=0.01)
    assert sum({1: 0.01, 2: 0.02, 4: 0.05}[size] for size in asked) <= 1.5


def test_one_bump_does_not_end_the_search() -> None:
    assert measured({1: 0.010, 2: 0.021, 4: 0.030, 8: 0.062, 16: 0.120}, 16)[0].most == 4


def test_it_goes_up_to_the_limit_and_not_beyond() -> None:
    assert measured({1: 0.01, 2: 0.01, 4: 0.01, 6: 0.01}, 6)[0].most == 6


def test_a_slow_model_is_not_measured_for_ever() -> None:
    sizes, asked = measured({1: 1.0, 2: 1.0}, 64)
    assert sizes == BatchSizes(most=1, unit_s=1.0, enough=1, enough_s=1.0)
    assert asked == [1, 1]


@pytest.mark.parametrize(
    ("frames", "side", "device", "most"),
    [
        (2, 224, "cpu", 32),
        (2, 224, "cuda", 128),
        (16, 224, "cuda", 55),
        (32, 512, "cpu", 5),
        (64, 1024, "cpu", 1),
    ],
)
def test_a_batch_of_large_units_is_small(frames: int, side: int, device: str, most: int) -> None:
    spec = replace(
        ModelStore().find("camera-motion").spec,
        sampling=Sampling(frames, 1, 1.0, 1.0, 1.0, 1.0),
        preprocessing=Preprocessing(side, side, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )
    assert largest_batch(spec, device) == most
