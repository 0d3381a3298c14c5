"""Tests of orientation, shape and crops of decoded pixels."""

import itertools
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image, ImageFilter

from tests.support.preprocessing import preprocessing
from tests.support.sample_clip import town
from tests.support.videos import crop_filters, decode_file, ffmpeg_frames, render, shared_clip
from tubelet.models.spec import Preprocessing
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.demux.hwaccel import accelerator
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import CROPS, VideoMetadata

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SQUARE = preprocessing(64, 64, "stretch")
_PATCHES = np.array([[[220, 30, 30], [30, 200, 30]], [[40, 40, 220], [230, 230, 230]]], np.uint8)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


async def _first_frame(
    pool: DecodePool, path: Path, pixel_format: Preprocessing = _SQUARE
) -> tuple[VideoMetadata, np.ndarray]:
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, path, pixel_format=pixel_format)
    return metadata, units[0, 0][0]


def _patches(width: int, height: int) -> np.ndarray:
    """Draw one colour in each quarter: -> (height, width, 3)."""
    return _PATCHES.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def _quarter_colours(pixels: np.ndarray) -> np.ndarray:
    """Return the colours at the centres of the quarters: (H, W, 3) -> (2, 2, 3)."""
    height, width = pixels.shape[:2]
    return pixels[height // 4 :: height // 2, width // 4 :: width // 2].astype(int)


@pytest.mark.parametrize(
    ("degrees", "hflip", "vflip"),
    list(itertools.product((0, 90, 180, 270), (False, True), (False, True))),
)
async def test_display_matrix_is_applied(
    pool: DecodePool, tmp_path: Path, degrees: int, hflip: bool, vflip: bool
) -> None:
    path = render(
        tmp_path / "clip.mp4", 2, draw=lambda _: _patches(128, 64), rotation=(degrees, hflip, vflip)
    )
    metadata, pixels = await _first_frame(pool, path)
    shown = np.rot90(_PATCHES, degrees // 90)
    shown = shown[:, ::-1] if hflip else shown
    shown = shown[::-1] if vflip else shown
    assert (metadata.width, metadata.height) == ((64, 128) if degrees % 180 else (128, 64))
    assert np.abs(_quarter_colours(pixels) - shown).max() <= 12  # chroma at half size, and a lossy codec


@pytest.mark.parametrize(
    "name",
    ["odd/torchcodec/nasa_13013_rotated.mp4", "odd/decord/video_90.mov", "odd/fate/sample-in-issue-505.mp4"],
)
async def test_rotated_phone_clips_equal_ffmpeg(pool: DecodePool, name: str) -> None:
    path = shared_clip(name)
    pixel_format = preprocessing(48, 32, "crop")
    metadata, pixels = await _first_frame(pool, path, pixel_format)
    filters = crop_filters(metadata.width, metadata.height, pixel_format, "auto")
    reference = ffmpeg_frames(path, filters, 32, 48)
    # ffmpeg rotates before resizing and we rotate after, with chroma slightly elsewhere.
    assert min(np.abs(frame.astype(int) - pixels).mean() for frame in reference[:3]) <= 2


def _crops(metadata: VideoMetadata) -> Plan:
    """Return a plan of one frame with three crops, as in a multi-view test."""
    end = metadata.duration_ns
    return Plan(tuple(SamplingGrid(0, end, end, 1, 1, 1, True, 0, crop) for crop in CROPS))


@pytest.mark.parametrize("turn", [(0, False, False), (90, False, False)], ids=["landscape", "portrait"])
@pytest.mark.parametrize(
    "pixel_format",
    [
        preprocessing(64, 64, "crop"),
        preprocessing(48, 32, "crop", 64, 64),
        preprocessing(33, 33, "crop", 40, 40),
    ],
    ids=["no margin", "a margin", "odd"],
)
async def test_crops_along_the_longer_side_equal_ffmpeg(
    pool: DecodePool, tmp_path: Path, pixel_format: Preprocessing, turn: tuple[float, bool, bool]
) -> None:
    # Blurred, because ffmpeg rotates before resizing and we rotate after.
    picture = np.asarray(town().crop((300, 400, 556, 528)).filter(ImageFilter.GaussianBlur(4)))
    path = render(tmp_path / "clip.mp4", 1, size=(256, 128), draw=lambda _: picture, rotation=turn)
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, path, _crops, pixel_format)
    seen = [units[grid, 0][0].astype(int) for grid in range(3)]
    assert min(np.abs(seen[one] - seen[other]).mean() for one, other in ((0, 1), (1, 2), (0, 2))) > 10
    for crop, pixels in zip(CROPS, seen, strict=True):
        filters = crop_filters(metadata.width, metadata.height, pixel_format, "auto", crop)
        (reference,) = ffmpeg_frames(path, filters, pixel_format.width, pixel_format.height)
        assert np.abs(pixels - reference).mean() <= 2


@pytest.mark.parametrize("resize", ["crop", "stretch"])
async def test_crops_equal_pillow(pool: DecodePool, tmp_path: Path, resize) -> None:
    picture = town().crop((300, 400, 400, 440))
    path = render(
        tmp_path / "clip.mov",
        1,
        size=(100, 40),
        codec="png",
        pix_fmt="rgb24",
        draw=lambda _: np.asarray(picture),
    )
    pixel_format = preprocessing(16, 16, resize, 20, 24, resample="bicubic")
    async with pool.session() as session:
        _, units, _ = await decode_file(session, path, _crops, pixel_format)
    size = (50, 20) if resize == "crop" else (24, 20)
    resized = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)).astype(int)
    for grid, left in enumerate((0, (size[0] - 16) // 2, size[0] - 16)):
        assert np.abs(units[grid, 0][0] - resized[2:18, left : left + 16]).max() <= 1


async def test_non_square_pixels_widen_the_picture(pool: DecodePool, tmp_path: Path) -> None:
    path = render(tmp_path / "clip.mkv", 2, size=(64, 64), aspect=Fraction(2))
    pixel_format = preprocessing(64, 64, "crop")
    metadata, pixels = await _first_frame(pool, path, pixel_format)
    assert (metadata.width, metadata.height) == (128, 64)
    reference = ffmpeg_frames(path, crop_filters(128, 64, pixel_format, "auto"), 64, 64)
    assert np.abs(pixels.astype(int) - reference[0]).mean() <= 2


@pytest.mark.parametrize("size", [(4096, 16), (16, 4096), (2, 2)])
async def test_extreme_shapes_are_converted(pool: DecodePool, tmp_path: Path, size: tuple[int, int]) -> None:
    path = render(
        tmp_path / "clip.mov", 2, size=size, codec="png", pix_fmt="rgb24", draw=lambda _: _patches(*size)
    )
    _, pixels = await _first_frame(pool, path, preprocessing(64, 32, "crop"))
    assert pixels.shape == (64, 32, 3)


async def test_software_decodes_without_a_video_engine(clip: Path) -> None:
    config = DecodeConfig(workers=1, hardware="cuda")
    async with DecodePool(config) as pool, pool.session() as session:
        _, units, _ = await decode_file(session, clip)
    assert len(units) == 80


@pytest.mark.gpu
@pytest.mark.skipif(accelerator("cuda") is None, reason="no video engine here")
@pytest.mark.parametrize("name", ["real/R6llTwEh07w.mp4", "real/flipping_a_pancake.mkv", "real/asl/bird.mkv"])
async def test_video_engine_gives_the_same_frames(pool: DecodePool, name: str) -> None:
    path = shared_clip(name)
    async with DecodePool(DecodeConfig(workers=1, hardware="cuda")) as other, other.session() as session:
        assert other.protections == frozenset()
        _, units, end = await decode_file(session, path)
    async with pool.session() as session:
        _, expected, by_software = await decode_file(session, path)
    assert end == by_software
    for key, pixels in expected.items():
        assert np.abs(units[key].astype(int) - pixels).mean() <= 2
