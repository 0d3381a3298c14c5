"""Tests of decoded colours: matrix, range, bit depth, chroma, palette, transparency."""

import itertools
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import pytest_asyncio

from tests.support.ffmpeg_reference import EXACT
from tests.support.preprocessing import preprocessing
from tests.support.videos import decode_file, ffmpeg_frames, render
from tubelet.models.spec import Preprocessing
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.errors import NoVideoStream

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Every mix of six levels of red, green and blue, as patches: (12, 18, 3).
_PATCHES = np.array(list(itertools.product((0, 40, 90, 140, 200, 255), repeat=3)), np.uint8).reshape(
    12, 18, 3
)
_MODEL = preprocessing(224, 224, "stretch")
_PATTERN = "testsrc2=size=160x120:rate=5:duration=0.4"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


async def _first_frame(pool: DecodePool, path: Path, pixel_format: Preprocessing = _MODEL) -> np.ndarray:
    async with pool.session() as session:
        _, units, _ = await decode_file(session, path, pixel_format=pixel_format)
    return units[0, 0][0].astype(int)


def _pattern(path: Path, size: tuple[int, int], matrix: str, tag: str, color_range: str, stored: str) -> None:
    """Encode the patches as Y'CbCr with zimg, which shares no code with the decoder's scaler."""
    width, height = size
    pixels = _PATCHES.repeat(height // 12, axis=0).repeat(width // 18, axis=1)
    command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-i", "-", "-vf", f"format=gbrp,zscale=m={matrix}:r={color_range},format={stored}"]
    command += ["-colorspace", tag, "-color_range", color_range, "-c:v", "ffv1", str(path)]
    subprocess.run(command, input=pixels.tobytes() * 2, check=True)


def _middles(pixels: np.ndarray) -> np.ndarray:
    """Return the colours at the patches' centres: (H, W, 3) -> (12, 18, 3)."""
    rows = (np.arange(12) * 2 + 1) * pixels.shape[0] // 24
    columns = (np.arange(18) * 2 + 1) * pixels.shape[1] // 36
    return pixels[rows][:, columns]


@pytest.mark.parametrize("color_range", ["tv", "pc"])
@pytest.mark.parametrize(
    "stored", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv420p12le", "yuv444p12le"]
)
async def test_bt709_colours(pool: DecodePool, tmp_path: Path, color_range: str, stored: str) -> None:
    _pattern(tmp_path / "clip.mkv", (648, 360), "709", "bt709", color_range, stored)
    off = np.abs(_middles(await _first_frame(pool, tmp_path / "clip.mkv")) - _PATCHES)
    assert off.max() <= 2
    assert off.mean() <= 0.5


@pytest.mark.parametrize(
    ("matrix", "tag", "size"),
    [
        ("170m", "smpte170m", (1278, 720)),
        ("170m", "bt470bg", (324, 240)),
        ("2020_ncl", "bt2020nc", (324, 240)),
        ("170m", "unknown", (324, 240)),
        ("709", "unknown", (1278, 720)),
    ],
)
async def test_matrix_is_the_stated_or_the_usual_one(
    pool: DecodePool, tmp_path: Path, matrix: str, tag: str, size: tuple[int, int]
) -> None:
    _pattern(tmp_path / "clip.mkv", size, matrix, tag, "tv", "yuv444p")
    off = np.abs(_middles(await _first_frame(pool, tmp_path / "clip.mkv")) - _PATCHES)
    assert off.max() <= 2


@pytest.mark.parametrize("resample", ["swscale", "bilinear"])
async def test_colours_without_resizing(
    pool: DecodePool, tmp_path: Path, resample: Literal["swscale", "bilinear"]
) -> None:
    _pattern(tmp_path / "clip.mkv", (216, 216), "709", "bt709", "tv", "yuv420p")
    pixel_format = preprocessing(216, 216, "stretch", resample=resample)
    off = np.abs(_middles(await _first_frame(pool, tmp_path / "clip.mkv", pixel_format)) - _PATCHES)
    assert off.max() <= (2 if resample == "swscale" else 3)
    assert off.mean() <= (0.5 if resample == "swscale" else 1)


@pytest.mark.parametrize(
    ("ending", "codec", "stored"),
    [
        ("mov", "png", "pal8"),
        ("mov", "png", "gray"),
        ("mov", "png", "gray16be"),
        ("mov", "png", "monob"),
        ("mov", "png", "rgb48be"),
        ("mkv", "ffv1", "gray10le"),
        ("mkv", "ffv1", "gbrp10le"),
        ("mkv", "ffv1", "yuv411p"),
        ("mkv", "ffv1", "yuv440p"),
        ("mkv", "mjpeg", "yuvj420p"),
        ("avi", "mjpeg", "yuvj422p"),
        ("avi", "mjpeg", "yuvj444p"),
        ("avi", "rawvideo", "rgb555le"),
        ("avi", "rawvideo", "nv12"),
        ("avi", "rawvideo", "uyvy422"),
    ],
)
async def test_each_pixel_format_equals_ffmpeg(
    pool: DecodePool, tmp_path: Path, ending: str, codec: str, stored: str
) -> None:
    path = tmp_path / f"clip.{ending}"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", _PATTERN, "-pix_fmt", stored]
    subprocess.run([*command, "-c:v", codec, str(path)], check=True)
    reference = ffmpeg_frames(path, f"scale=64:64:{EXACT},format=rgb24", 64, 64)
    pixels = await _first_frame(pool, path, preprocessing(64, 64, "stretch"))
    assert np.abs(pixels - reference[0]).mean() <= 2


async def test_gif_with_transparent_and_partial_frames(pool: DecodePool, tmp_path: Path) -> None:
    path = tmp_path / "clip.gif"
    moving = (
        "color=black@0:96x64:r=10:d=1,format=rgba[a];testsrc2=24x24:r=10:d=1[b];[a][b]overlay=x=t*60:y=20"
    )
    palette = "format=rgba,split[c][d];[c]palettegen[p];[d][p]paletteuse"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"{moving}:format=rgb,{palette}", str(path)]
    subprocess.run(command, check=True)
    over_black = f"format=gbrap,premultiply=inplace=1,format=gbrp,scale=64:64:{EXACT},format=rgb24"
    reference = ffmpeg_frames(path, over_black, 64, 64)
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, path, pixel_format=preprocessing(64, 64, "stretch"))
    assert metadata.frames == len(reference) == 10
    for unit in range(8):  # 16 requests in a second
        for frame in range(2):
            number = int((4 * unit + 2 * frame + 1) / 32 * 10)
            assert np.abs(units[0, unit][frame].astype(int) - reference[number]).mean() <= 2


async def test_transparent_pixels_show_black(pool: DecodePool, tmp_path: Path) -> None:
    picture = np.full((64, 64, 4), 255, np.uint8)
    picture[:, :, 3] = np.linspace(0, 255, 64).astype(np.uint8)
    path = render(
        tmp_path / "clip.mov", 2, size=(64, 64), codec="png", pix_fmt="rgba", draw=lambda _: picture
    )
    pixels = await _first_frame(pool, path, preprocessing(64, 64, "stretch"))
    assert np.abs(pixels - picture[:, :, 3:].astype(int)).max() <= 2


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
async def test_webm_transparency_shows_black(pool: DecodePool, tmp_path: Path, codec: str) -> None:
    """The left half of a white picture is transparent; FFmpeg's own decoders ignore that and show white."""
    path = tmp_path / "clip.webm"
    source = (
        "nullsrc=64x64:d=1:r=10,format=yuva420p,geq=lum=235:cb=128:cr=128:a='if(lt(X,32),0,255)',"
        "setparams=range=tv:colorspace=bt709"
    )
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-c:v", codec, "-auto-alt-ref", "0"]
    subprocess.run([*command, str(path)], check=True)
    async with pool.session() as session:
        metadata, units, end = await decode_file(session, path, pixel_format=preprocessing(64, 64, "stretch"))
    assert (metadata.frames, end.warnings) == (10, ())
    for unit in units.values():
        assert unit[:, :, :28].max() <= 2
        assert unit[:, :, 36:].min() >= 250


async def test_colours_of_transparent_pixels_do_not_bleed(pool: DecodePool, tmp_path: Path) -> None:
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[:, ::2] = (200, 0, 0, 255)
    picture[:, 1::2] = (255, 255, 255, 0)
    path = render(
        tmp_path / "clip.mov", 2, size=(64, 64), codec="png", pix_fmt="rgba", draw=lambda _: picture
    )
    pixels = await _first_frame(pool, path, preprocessing(32, 32, "stretch"))
    assert np.abs(pixels - [100, 0, 0])[:, 1:-1].max() <= 2


async def test_cover_picture_is_not_a_video(pool: DecodePool, tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=d=1", "-f", "lavfi", "-i", _PATTERN]
    command += ["-map", "0:a", "-map", "1:v", "-frames:v", "1", "-c:v", "mjpeg"]
    subprocess.run([*command, "-disposition:v:0", "attached_pic", str(path)], check=True)
    async with pool.session() as session:
        with pytest.raises(NoVideoStream, match="cover picture"):
            await decode_file(session, path)


async def test_cover_picture_beside_a_video_is_ignored(pool: DecodePool, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=blue:64x64:r=10:d=1", "-f", "lavfi"]
    command += ["-i", "color=white:640x480:d=1", "-map", "0:v", "-map", "1:v", "-c:v:0", "libx264"]
    command += ["-c:v:1", "png", "-frames:v:1", "1", "-disposition:v:1", "attached_pic"]
    subprocess.run([*command, str(path)], check=True)
    pixels = await _first_frame(pool, path, preprocessing(64, 64, "stretch"))
    assert np.abs(pixels - [0, 0, 255]).mean() <= 2
