"""Tests of tone mapping: SDR colours are kept in HDR video, and brighter light is compressed."""

import itertools
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from tests.support.preprocessing import preprocessing
from tests.support.videos import decode_file
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool

pytestmark = pytest.mark.asyncio(loop_scope="module")

_TRANSFERS = {"smpte2084": ColorTrc.SMPTE2084, "arib-std-b67": ColorTrc.ARIB_STD_B67}
# SDR colours below 88 cd/m², for white at 203, where the curve begins to bend: (8, 8, 3).
_COLOURS = np.array(list(itertools.product((60, 100, 140, 175), repeat=3)), np.uint8).reshape(8, 8, 3)
_PATCH = 12  # pixels


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


async def _decode_patches(pool: DecodePool, path: Path, patches: np.ndarray, transfer: str) -> np.ndarray:
    """Encode R'G'B' (rows, columns, 3) uint16 in 12 bits; return the decoded colours in that shape."""
    rows, columns = patches.shape[:2]
    pixels = patches.repeat(_PATCH, axis=0).repeat(_PATCH, axis=1).astype("<u2")
    size = f"{columns * _PATCH}x{rows * _PATCH}"
    command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", size, "-i", "-"]
    command += ["-vf", "format=gbrp16,zscale=m=2020_ncl:r=tv,format=yuv444p12", "-colorspace", "bt2020nc"]
    command += ["-color_range", "tv", "-color_trc", transfer, "-color_primaries", "bt2020", "-c:v", "ffv1"]
    subprocess.run([*command, str(path)], input=pixels.tobytes(), check=True)
    pixel_format = preprocessing(rows * 6, columns * 6, "stretch")
    async with pool.session() as session:
        _, units, _ = await decode_file(session, path, pixel_format=pixel_format)
    return units[0, 0][0][3::6, 3::6].astype(int)


def _greys(transfer: str, light: list[int]) -> np.ndarray:
    """Return the signal of greys in cd/m² by BT.2100, HLG on a 1,000 cd/m² display: -> (1, N, 3) uint16."""
    parts = np.array(light) / 10_000
    if transfer == "smpte2084":
        power = parts ** (2610 / 16384)
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** (2523 / 32)
    else:
        scene = (parts * 10) ** (1 / 1.2)
        bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)
    return np.rint(signal * 65535).astype(np.uint16)[None, :, None].repeat(3, axis=2)


@pytest.mark.parametrize("transfer", _TRANSFERS)
async def test_colours_within_sdr_are_kept(pool: DecodePool, tmp_path: Path, transfer: str) -> None:
    sdr = VideoFrame.from_ndarray(_COLOURS, "rgb24")
    sdr.color_trc, sdr.color_primaries = ColorTrc.BT709, ColorPrimaries.BT709
    sdr.color_range = ColorRange.JPEG
    hdr = sdr.reformat(
        format="rgb48le",
        dst_color_trc=_TRANSFERS[transfer],
        dst_color_primaries=ColorPrimaries.BT2020,
        dst_color_range=ColorRange.JPEG,
    )
    off = np.abs(await _decode_patches(pool, tmp_path / "clip.mkv", hdr.to_ndarray(), transfer) - _COLOURS)
    assert off.mean() <= 1
    assert off.max() <= 6  # because of 8-bit R'G'B'
    plain = await _decode_patches(pool, tmp_path / "plain.mkv", hdr.to_ndarray(), "bt2020-12")
    assert np.abs(plain - _COLOURS).mean() > 10


@pytest.mark.parametrize("transfer", _TRANSFERS)
async def test_brighter_light_is_compressed(pool: DecodePool, tmp_path: Path, transfer: str) -> None:
    light = [0, 1, 10, 50, 88, 150, 203, 300, 500, 1000]
    shown = await _decode_patches(pool, tmp_path / "clip.mkv", _greys(transfer, light), transfer)
    assert np.ptp(shown, axis=2).max() <= 1  # greys stay grey
    level = shown[0, :, 1]
    as_sdr = 255 * (np.array(light[:5]) / 203) ** (1 / 2.4)
    assert np.abs(level[:5] - as_sdr).max() <= 2
    assert np.all(np.diff(level) > 0)
    assert 220 <= level[6] <= 240  # a white wall
    assert level[-1] == 255


async def test_light_above_the_peak_is_white(pool: DecodePool, tmp_path: Path) -> None:
    shown = await _decode_patches(
        pool, tmp_path / "clip.mkv", _greys("smpte2084", [1000, 4000, 10_000]), "smpte2084"
    )
    assert shown.min() == 255


async def test_wide_gamut_without_hdr_is_not_mapped(pool: DecodePool, tmp_path: Path) -> None:
    patches = _COLOURS.astype(np.uint16) * 257
    off = np.abs(await _decode_patches(pool, tmp_path / "clip.mkv", patches, "bt2020-12") - _COLOURS)
    assert off.max() <= 2
