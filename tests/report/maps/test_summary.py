"""Where a map has half of its mass: the seconds, the area and the part of the picture."""

import numpy as np
import pytest

from tests.support.segment_maps import segment_map
from tubelet.service.report.maps.summary import summarise
from tubelet.service.types.video import NS_PER_S, Rectangle

WHOLE = Rectangle(0, 0, 1, 1)


@pytest.mark.parametrize(
    ("over_time", "first", "last"),
    [
        ([1, 1, 1, 1], 0, 1),
        ([0, 0, 1, 0], 2, 2),
        ([4, 1, 1, 6], 3, 3),
        ([3, 1, 3, 3], 2, 3),
        ([1, 0, 0, 1], 0, 0),
        ([2, 1, 2, 5.1], 3, 3),
    ],
)
def test_the_shortest_time_with_half_of_the_mass(over_time: list[float], first: int, last: int) -> None:
    values = np.array(over_time)[:, None, None] * np.ones((4, 3, 3))
    found = summarise(segment_map(0, 2, steps=4, values=values))
    assert found is not None
    assert (found.start_ns, found.end_ns) == (first * NS_PER_S // 2, (last + 1) * NS_PER_S // 2)


def test_the_fewest_patches_with_half_of_the_mass() -> None:
    values = np.zeros((2, 4, 5))
    values[0, 0, 0], values[1, 3, 4], values[1, 1, 1] = 3, 2, 1
    found = summarise(segment_map(0, 1, steps=2, values=values, rectangle=WHOLE))
    assert found is not None
    assert found.area == pytest.approx(1 / 20)
    assert (found.place, found.place_share) == ("upper left", pytest.approx(1 / 2))
    even = summarise(segment_map(0, 1, steps=2, values=np.ones((2, 4, 5))))
    assert even is not None
    assert even.area == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [(0, 0, "upper left"), (1, 1, "centre"), (2, 1, "bottom"), (1, 2, "right"), (0, 1, "top")],
)
def test_the_strongest_part_is_one_of_the_picture_not_of_the_crop(row: int, column: int, place: str) -> None:
    values = np.zeros((1, 3, 3))
    values[0, row, column] = 1
    whole = summarise(segment_map(0, 0.5, steps=1, values=values, rectangle=WHOLE))
    assert whole is not None
    assert whole.place == place
    crop = summarise(
        segment_map(0, 0.5, steps=1, values=values, rectangle=Rectangle(1 / 3, 1 / 3, 2 / 3, 2 / 3))
    )
    assert crop is not None
    assert crop.place == "centre"


def test_a_map_of_nothing_has_no_place() -> None:
    assert summarise(segment_map(0, 1, steps=2, values=np.zeros((2, 3, 3)))) is None
