"""The rectangle of the shown picture that a model sees: the pixels in it are those that the model got."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.preprocessing import preprocessing
from tests.support.videos import decode_file, ffmpeg_frames, render
from tubelet.models.spec import Preprocessing
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pixels.geometry import seen_rectangle
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import CROPS, Rectangle, VideoMetadata

_SEEN = (
    preprocessing(48, 64, "crop"),
    preprocessing(48, 64, "stretch"),
    preprocessing(32, 40, "crop", 48, 64),
)


def _ramps(width: int, height: int) -> np.ndarray:
    """Draw a picture that is redder to the right and greener to the bottom: -> (height, width, 3)."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([red, green, np.zeros_like(red)], axis=2).astype(np.uint8)


def _crops(metadata: VideoMetadata) -> Plan:
    """Plan a window of one unit of one frame for each crop."""
    end = metadata.duration_ns
    return Plan(
        tuple(SamplingGrid(0, end, end, 1, 1, 1, one_segment=True, view_ns=0, crop=crop) for crop in CROPS)
    )


@pytest.mark.parametrize("seen", _SEEN, ids=["crop", "stretch", "margin"])
@pytest.mark.parametrize(
    ("turn", "aspect"),
    [((0, False, False), None), ((90, False, False), None), ((270, True, False), Fraction(4, 3))],
    ids=["upright", "turned", "turned, mirrored, wide pixels"],
)
async def test_the_rectangle_is_what_the_model_sees(
    tmp_path: Path, seen: Preprocessing, turn: tuple[float, bool, bool], aspect: Fraction | None
) -> None:
    drawn = _ramps(256, 96)
    path = render(
        tmp_path / "clip.mp4", 1, size=(256, 96), draw=lambda _: drawn, rotation=turn, aspect=aspect
    )
    async with DecodePool(DecodeConfig(workers=1)) as pool, pool.session() as session:
        metadata, units, _ = await decode_file(session, path, _crops, seen)
    width, height = metadata.width, metadata.height
    (shown,) = ffmpeg_frames(path, f"scale={width}:{height}", width, height)  # which ffmpeg turns upright
    for grid, crop in enumerate(CROPS):
        found = seen_rectangle(seen, crop, width, height)
        expected = Image.fromarray(shown).resize(
            (seen.width, seen.height),
            Image.Resampling.BILINEAR,
            (found.left * width, found.top * height, found.right * width, found.bottom * height),
        )
        inner = np.s_[2:-2, 2:-2, :2]  # filters differ at edges
        off = units[grid, 0][0].astype(int)[inner] - np.asarray(expected, int)[inner]
        assert np.abs(off).mean() < 3  # of 255; an eighth of the picture is 32


def test_black_borders_exceed_the_picture() -> None:
    small = preprocessing(60, 100, "stretch", 60, 50, resample="bilinear")
    assert seen_rectangle(small, "centre", 640, 480) == Rectangle(-0.5, 0, 1.5, 1)


def test_patches_are_equal_parts() -> None:
    whole = Rectangle(0.25, 0, 0.75, 1)
    assert whole.patch(0, 0, 2, 4) == Rectangle(0.25, 0, 0.375, 0.5)
    assert whole.patch(1, 3, 2, 4) == Rectangle(0.625, 0.5, 0.75, 1)
