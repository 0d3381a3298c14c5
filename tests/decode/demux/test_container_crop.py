"""Tests that the part of the stored picture which the container hides is cropped first."""

import shutil
import struct
import subprocess
from collections.abc import AsyncIterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio
from PIL import ImageFilter

from tests.support.mp4_boxes import add_to_sample_entry, box, edit_boxes
from tests.support.preprocessing import preprocessing
from tests.support.sample_clip import town
from tests.support.videos import (
    crop_filters,
    decode_file,
    ffmpeg_frames,
    mark_interlaced,
    probe_file,
    remux,
    render,
)
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.demux.container_crop import NO_CROPPING, Cropping
from tubelet.service.decode.pixels.rgb_converter import RgbConverter
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.protocol import VideoRejected

pytestmark = pytest.mark.asyncio(loop_scope="module")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

_WIDTH, _HEIGHT = 192, 128
_CROPPING = Cropping(left=16, right=8, top=4, bottom=28)
_ODD = Cropping(left=3, right=6, top=5, bottom=12)
_MODEL = preprocessing(48, 48, "crop", 56, 56)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


def _picture() -> np.ndarray:
    """Return a picture (height, width, 3), blurred because ffmpeg rotates before resizing, not after."""
    part = town().crop((300, 400, 300 + _WIDTH, 400 + _HEIGHT))
    return np.asarray(part.filter(ImageFilter.GaussianBlur(3)))


_render = partial(render, frames=2, size=(_WIDTH, _HEIGHT), draw=lambda _: _picture())


def _add_clap(plain: Path, path: Path, cropping: Cropping) -> Path:
    """Write the mp4 or mov ``plain`` with a clap box, which states the offset of the picture's centre."""
    left, right, top, bottom = cropping
    aperture = (_WIDTH - left - right, 1, _HEIGHT - top - bottom, 1, left - right, 2, top - bottom, 2)
    path.write_bytes(add_to_sample_entry(plain.read_bytes(), box(b"clap", struct.pack(">4I4i", *aperture))))
    return path


def _crop_filter(cropping: Cropping) -> str:
    """Return ffmpeg's crop filter for ``cropping``."""
    left, right, top, bottom = cropping
    return f"crop=iw-{left + right}:ih-{top + bottom}:{left}:{top}:exact=1"


async def _assert_cropped(pool: DecodePool, path: Path, expected: np.ndarray, size: tuple[int, int]) -> None:
    """Assert the size of the video at ``path``, and that its first frame looks like ``expected``."""
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, path, pixel_format=_MODEL)
    assert (metadata.width, metadata.height) == size
    assert np.abs(units[0, 0][0].astype(int) - expected).mean() <= 2


@needs_ffmpeg
@pytest.mark.parametrize("cropping", [_CROPPING, _ODD], ids=["even", "odd"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
async def test_cropping_equals_ffmpeg(
    pool: DecodePool, tmp_path: Path, ending: str, cropping: Cropping
) -> None:
    plain = _render(tmp_path / "plain.mp4")
    path = _add_clap(plain, tmp_path / "clip.mp4", cropping)
    if ending == "mkv":
        path = remux(path, tmp_path / "clip.mkv", {})
    left, right, top, bottom = cropping
    size = width, height = _WIDTH - left - right, _HEIGHT - top - bottom
    filters = f"{_crop_filter(cropping)},{crop_filters(width, height, _MODEL, 'auto')}"
    await _assert_cropped(pool, path, ffmpeg_frames(plain, filters, 48, 48)[0], size)


@needs_ffmpeg
async def test_cropping_comes_before_rotation(pool: DecodePool, tmp_path: Path) -> None:
    plain = _render(tmp_path / "plain.mp4", rotation=(90, False, False))
    path = _add_clap(plain, tmp_path / "clip.mp4", _CROPPING)
    left, right, top, bottom = _CROPPING
    size = width, height = _HEIGHT - top - bottom, _WIDTH - left - right
    # ffmpeg rotates first: left and right become bottom and top.
    turned = Cropping(left=top, right=bottom, top=right, bottom=left)
    filters = f"{_crop_filter(turned)},{crop_filters(width, height, _MODEL, 'auto')}"
    await _assert_cropped(pool, path, ffmpeg_frames(plain, filters, 48, 48)[0], size)


@needs_ffmpeg
async def test_cropping_keeps_the_pixel_aspect(pool: DecodePool, tmp_path: Path) -> None:
    plain = _render(tmp_path / "plain.mp4", aspect=Fraction(4, 3))
    path = _add_clap(plain, tmp_path / "clip.mp4", _CROPPING)
    left, right, top, bottom = _CROPPING
    size = width, height = (_WIDTH - left - right) * 4 // 3, _HEIGHT - top - bottom
    filters = f"{_crop_filter(_CROPPING)},{crop_filters(width, height, _MODEL, 'auto')}"
    await _assert_cropped(pool, path, ffmpeg_frames(plain, filters, 48, 48)[0], size)


async def test_track_of_the_cropped_size_has_square_pixels(tmp_path: Path) -> None:
    """FFmpeg derives other pixels from the track's size, because it ignores the cropping."""
    left, right, top, bottom = _CROPPING
    width, height = _WIDTH - left - right, _HEIGHT - top - bottom
    path = _add_clap(_render(tmp_path / "plain.mp4"), tmp_path / "clip.mp4", _CROPPING)
    size = struct.pack(">2I", width << 16, height << 16)
    path.write_bytes(edit_boxes(path.read_bytes(), "moov/trak/tkhd", lambda tkhd: tkhd[:-8] + size))
    with probe_file(path) as track:
        assert (track.metadata.width, track.metadata.height) == (width, height)


@pytest.mark.parametrize(("parity", "first"), [("tff", 50), ("bff", 200)])
async def test_cropping_keeps_the_field_order(parity: str, first: int) -> None:
    """A crop that begins at an odd line would exchange the fields."""
    lines = np.array([50, 200], np.uint8).repeat(_WIDTH).reshape(2, _WIDTH)
    frame = av.VideoFrame.from_ndarray(np.tile(lines, (_HEIGHT // 2, 1)), "gray")
    converter = RgbConverter(_MODEL, None, {"centre"}, _ODD)
    pixels = converter.convert(mark_interlaced(frame, parity)).crop("centre")
    assert np.abs(pixels.astype(int) - first).max() <= 2


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["dvvideo", "qtrle", "v210", "mjpeg", "h263"])
async def test_cropping_is_read_for_every_codec(tmp_path: Path, codec: str) -> None:
    """Some of these codecs have a QuickTime code but no Matroska codec ID."""
    plain = tmp_path / "plain.mov"
    size = {"dvvideo": "720x576", "h263": "352x288"}.get(codec, f"{_WIDTH}x{_HEIGHT}")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", f"testsrc=r=25:d=0.1:s={size}"]
    subprocess.run([*command, "-c:v", codec, str(plain)], check=True)
    aperture = struct.pack(">4I4i", 100, 1, 60, 1, 10, 1, -6, 1)
    path = tmp_path / "clip.mov"
    path.write_bytes(add_to_sample_entry(plain.read_bytes(), box(b"clap", aperture)))
    with probe_file(plain) as track:
        assert track.cropping == NO_CROPPING
        width, height = (int(side) for side in size.split("x"))
    with probe_file(path) as track:
        left, top = (width - 100) // 2 + 10, (height - 60) // 2 - 6
        assert track.cropping == Cropping(left, width - 100 - left, top, height - 60 - top)
        assert track.metadata.height == 60


@pytest.mark.parametrize(
    "aperture",
    [
        (_WIDTH + 2, 1, _HEIGHT, 1, 0, 1, 0, 1),
        (_WIDTH, 1, _HEIGHT, 1, 10, 1, 0, 1),
        (100, 1, 60, 1, -90, 1, 0, 1),
        (0, 1, 0, 1, 0, 1, 0, 1),
        (100, 0, 60, 0, 0, 0, 0, 0),
        (2**32 - 1, 1, 2**32 - 1, 1, -(2**31), 1, 2**31 - 1, 1),
    ],
    ids=str,
)
async def test_invalid_aperture_is_ignored(tmp_path: Path, aperture: tuple[int, ...]) -> None:
    path = tmp_path / "clip.mp4"
    clap = box(b"clap", struct.pack(">4I4i", *aperture))
    path.write_bytes(add_to_sample_entry(_render(tmp_path / "plain.mp4").read_bytes(), clap))
    with probe_file(path) as track:
        assert (track.metadata.width, track.metadata.height) == (_WIDTH, _HEIGHT)


@pytest.mark.parametrize("side", [b"\x54\xcc", b"\x54\xdd", b"\x54\xbb", b"\x54\xaa"], ids=bytes.hex)
async def test_cropping_larger_than_the_picture_is_rejected(tmp_path: Path, side: bytes) -> None:
    path = _add_clap(_render(tmp_path / "plain.mp4"), tmp_path / "clip.mp4", _CROPPING)
    path = remux(path, tmp_path / "clip.mkv", {})
    data = bytearray(path.read_bytes())
    data[data.index(side + b"\x81") + 3] = 255
    path.write_bytes(data)
    with pytest.raises(VideoRejected) as refused, probe_file(path):
        pass
    assert refused.value.reason == "NOT_A_VIDEO"
