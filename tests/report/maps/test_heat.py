"""Maps as colours over pictures: the scales, and where each patch lies."""

import numpy as np
import pytest

from tubelet.service.report.maps.heat import (
    NO_DIFFERENCE,
    Overlay,
    Scale,
    mixed,
    scale_colours,
    to_bytes,
)
from tubelet.service.types.video import Rectangle

WHOLE = Rectangle(0, 0, 1, 1)


def shown(size: tuple[int, int], grid: tuple[int, int], at: tuple[int, int], seen: Rectangle) -> np.ndarray:
    """Return which pixels of a grey picture a map changes whose only patch is ``at``: -> (H, W) bool."""
    patches = np.zeros(grid, np.uint8)
    patches[at] = 255
    picture = np.full((*size, 3), 100, np.uint8)
    drawn = mixed(picture, Overlay(size, grid, seen).layer(patches, "shares"))
    return (drawn != picture).any(axis=2)


@pytest.mark.parametrize("at", [(0, 0), (1, 2), (3, 4)])
def test_a_patch_is_drawn_where_it_lies(at: tuple[int, int]) -> None:
    rows, columns = np.nonzero(shown((40, 100), (4, 5), at, WHOLE))
    assert (rows.min(), rows.max()) == (at[0] * 10, at[0] * 10 + 9)
    assert (columns.min(), columns.max()) == (at[1] * 20, at[1] * 20 + 19)
    assert len(rows) == 10 * 20


def test_a_map_of_a_crop_leaves_the_rest_as_it_is() -> None:
    seen = Rectangle(0.25, 0, 0.75, 1)
    rows, columns = np.nonzero(shown((40, 80), (2, 2), (1, 0), seen))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 39, 20, 39)


def test_a_map_of_more_than_the_picture_is_cut() -> None:
    seen = Rectangle(0, -0.5, 1, 1.5)  # black borders above and below
    assert not shown((40, 40), (4, 4), (0, 1), seen).any()
    rows, _ = np.nonzero(shown((40, 40), (4, 4), (1, 1), seen))
    assert (rows.min(), rows.max()) == (0, 19)


def test_nothing_of_a_map_of_zeros_is_seen() -> None:
    picture = np.full((8, 8, 3), 77, np.uint8)
    nothings: dict[Scale, int] = {"shares": 0, "difference": NO_DIFFERENCE}
    for scale, nothing in nothings.items():
        layer = Overlay((8, 8), (2, 2), WHOLE).layer(np.full((2, 2), nothing, np.uint8), scale)
        assert (mixed(picture, layer) == picture).all()


def test_a_smooth_map_has_each_value_in_the_middle_of_its_patch() -> None:
    patches = np.array([[0, 255], [255, 0]], np.uint8)
    sharp, smooth = (
        Overlay((60, 60), (2, 2), WHOLE, smooth=smooth).layer(patches, "shares") for smooth in (False, True)
    )
    for row, column in ((15, 15), (15, 45), (45, 15), (45, 45)):
        assert smooth[row, column] == pytest.approx(sharp[row, column], abs=10)
    assert smooth[15, 30, 3] == pytest.approx((sharp[15, 15, 3] + sharp[15, 45, 3]) / 2, abs=0.02)
    assert np.abs(np.diff(smooth[..., 3], axis=0)).max() < 0.05


@pytest.mark.parametrize("scale", ["shares", "difference"])
def test_more_is_more_opaque_and_both_ends_differ(scale: Scale) -> None:
    colours = scale_colours(scale).astype(int)
    assert colours.shape == (256, 4)
    middle = NO_DIFFERENCE if scale == "difference" else 0
    assert colours[middle, 3] == 0
    assert (np.diff(colours[middle:, 3]) >= 0).all()
    assert (np.diff(colours[middle::-1, 3]) >= 0).all()
    assert np.abs(colours[1, :3] - colours[255, :3]).sum() > 200


def test_values_become_bytes_of_one_scale() -> None:
    values = np.array([-3.0, 0, 1.5, 3, 9], np.float32)
    assert to_bytes(values, 3, "shares").tolist() == [0, 0, 128, 255, 255]
    assert to_bytes(values, 3, "difference").tolist() == [1, 128, 192, 255, 255]
    assert to_bytes(np.zeros(3), 0, "difference").tolist() == [128] * 3


def test_only_the_map_is_coloured() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[..., 0] = 200
    drawn = mixed(picture, np.zeros((4, 4, 4), np.float32)).astype(int)
    assert np.ptp(drawn[0, 0]) < 0.25 * 200
