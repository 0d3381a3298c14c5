"""The picture of all heads: a panel for each, in which the patches that are attended to are coloured."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tubelet.service.report.maps.head_sheet import WindowHeads, head_sheet
from tubelet.service.types.video import NS_PER_S

LAYERS, HEADS, STEPS = 2, 3, 4
GRID = (4, 4)
SIDE = 112  # pixels of a panel


def heads(attended: tuple[str, ...] = ("patches", "patches")) -> WindowHeads:
    """Return heads of which each attends to a patch of its own in step 2: layer L, head A to patch (L, A)."""
    maps = np.zeros((len(attended), HEADS, STEPS, *GRID), np.float32)
    for layer in range(len(attended)):
        for head in range(HEADS):
            maps[layer, head, 2, layer, head] = 1
    away = np.zeros((len(attended), HEADS), np.float32)
    picture = np.full((32, 32, 3), 90, np.uint8)
    return WindowHeads("small 1", attended, maps, away, np.arange(4) / 2, picture, NS_PER_S, 2)


def coloured(sheet: bytes) -> np.ndarray:
    """Return which pixels of a sheet have a colour: -> (height, width) bool."""
    return np.ptp(np.asarray(Image.open(BytesIO(sheet)).convert("RGB")).astype(int), axis=2) > 40


def panels(sheet: bytes) -> list[tuple[int, int]]:
    """Return the corner (top, left) of each patch of a colour, row by row; the legend is below."""
    found = coloured(sheet)[:-74]
    corner = found & ~np.roll(found, 1, axis=0) & ~np.roll(found, 1, axis=1)
    return [(int(top), int(left)) for top, left in np.argwhere(corner)]


def test_each_head_has_its_patch_in_its_panel() -> None:
    found = panels(head_sheet(heads()))
    first_top, first_left = found[0]
    expected = [
        (first_top + layer * (SIDE + 6 + SIDE // 4), first_left + head * (SIDE + 6 + SIDE // 4))
        for layer in range(LAYERS)
        for head in range(HEADS)
    ]
    assert found == expected


def test_what_is_attended_at_another_time_is_not_drawn() -> None:
    assert panels(head_sheet(replace(heads(), step=1))) == []


def test_layers_over_time_have_bars_and_those_over_frames_no_row() -> None:
    plain = Image.open(BytesIO(head_sheet(heads())))
    bars = head_sheet(heads(("patches", "units")))
    assert Image.open(BytesIO(bars)).size == plain.size
    assert coloured(bars)[84 + SIDE + 6 :, :].sum() > 1000  # a full bar in each panel
    fewer = Image.open(BytesIO(head_sheet(heads(("frames", "patches")))))
    assert fewer.height == plain.height - SIDE - 6


def test_a_large_share_on_no_patch_is_written_into_the_panel() -> None:
    away = heads()
    away.on_no_patch[0, 1] = 0.6
    dark = np.asarray(Image.open(BytesIO(head_sheet(away))).convert("L")) < 40
    before = np.asarray(Image.open(BytesIO(head_sheet(heads()))).convert("L")) < 40
    assert dark.sum() - before.sum() > 1000


@pytest.mark.parametrize(("layers", "count"), [(48, 25), (2, 64)])
def test_many_heads_have_smaller_panels(layers: int, count: int) -> None:
    maps = np.random.default_rng(0).random((layers, count, 1, 2, 2)).astype(np.float32)
    away = np.zeros((layers, count), np.float32)
    picture = np.zeros((20, 30, 3), np.uint8)
    many = WindowHeads("big 1", ("patches",) * layers, maps, away, np.zeros(1), picture, 0, 0)
    sheet = Image.open(BytesIO(head_sheet(many)))
    assert max(sheet.size) < 5200
    assert sheet.info["Software"] == "tubelet"
