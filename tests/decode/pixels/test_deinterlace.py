"""Interlaced video: each frame shows one moment, without combs, where it lies, about as ffmpeg makes it."""

import gc
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from av.video.frame import VideoFrame

from tests.support.ffmpeg_reference import EXACT
from tests.support.sample_clip import Camera, look, move, town
from tests.support.videos import decode_file, ffmpeg_frames, flagged
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pixels.rgb_converter import RgbConverter
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import PixelFormat, VideoMetadata

_FRAMES, _RATE = 4, 25
_BY_SWSCALE = PixelFormat(224, 224, "stretch")
_BY_PILLOW = PixelFormat(224, 224, "stretch", resample="bilinear")  # from colours that are darker by 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


def _turning(path: Path, size: tuple[int, int], first: str, stored: str) -> None:
    """A camera turns fast over the town, in fields, softened against flicker; top or bottom come first."""
    scene, (width, height) = town(), size
    turn = move(Camera(500, 500), Camera(620, 510), _FRAMES / _RATE, fps=2 * _RATE)
    pixels = b"".join(look(scene, camera, size).tobytes() for camera in turn)
    command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", str(2 * _RATE), "-i", "-", "-vf"]
    command += [f"format={stored},tinterlace=interleave_{first}:flags=vlpf,setfield={first[0]}ff"]
    subprocess.run([*command, "-c:v", "ffv1", str(path)], input=pixels, check=True)


def _each_frame(metadata: VideoMetadata) -> Plan:
    end = metadata.duration_ns
    return Plan((SamplingGrid(0, end, end, 1, _FRAMES, _FRAMES, True),))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("first", ["top", "bottom"])
@pytest.mark.parametrize(
    ("size", "stored"), [((720, 576), "yuv420p"), ((720, 480), "yuv422p10le"), ((720, 1080), "yuv420p")]
)
async def test_frames_look_as_bwdif_makes_them(
    pool: DecodePool, tmp_path: Path, size: tuple[int, int], stored: str, first: str
) -> None:
    path = tmp_path / "clip.mkv"
    _turning(path, size, first, stored)
    matrix = "bt709" if size[1] >= 720 else "smpte170m"
    resized = f"scale=224:224:{EXACT}:in_color_matrix={matrix},format=rgb24"
    right = ffmpeg_frames(path, f"bwdif=mode=send_frame:deint=interlaced,{resized}", 224, 224).astype(int)
    combed = ffmpeg_frames(path, f"il=l=d:c=d,{resized},il=l=i:c=i", 224, 224).astype(int)
    for pixel_format, within in ((_BY_SWSCALE, 2), (_BY_PILLOW, 2.5)):
        async with pool.session() as session:
            metadata, units, _ = await decode_file(session, path, _each_frame, pixel_format)
        assert (metadata.width, metadata.height, metadata.frames) == (*size, _FRAMES)
        for number in range(_FRAMES):
            pixels = units[0, number][0]
            assert np.abs(pixels - right[number]).mean() <= within
            assert _comb(pixels) < 1.1 * _comb(right[number]) < 0.6 * _comb(combed[number])


def _comb(pixels: np.ndarray) -> float:
    """How much lines differ from those around them."""
    wide = pixels.astype(int)
    return float(np.abs(2 * wide[1:-1] - wide[:-2] - wide[2:]).mean())


@pytest.mark.parametrize("height", [16, 32, 64, 200])
@pytest.mark.parametrize(("lines", "within"), [(64, 0.5), (63, 2.5)])  # a line too many is cut off
@pytest.mark.parametrize("parity", ["tff", "bff"])
def test_a_still_picture_lies_where_it_would_without_fields(
    parity: str, lines: int, height: int, within: float
) -> None:
    ramp = np.arange(lines, dtype=np.uint8)[:, None].repeat(64, axis=1) * 4  # half a line is 2
    frame = VideoFrame.from_ndarray(ramp, "gray")
    converter = RgbConverter(PixelFormat(height, 64, "stretch"), None, {"centre"})
    still = converter.convert(frame).crop("centre").astype(int)
    field = converter.convert(flagged(frame, parity)).crop("centre").astype(int)
    assert np.abs(still - field)[height // 8 : -height // 8].mean() < within


def test_what_was_painted_is_not_held() -> None:
    """Not even by objects that hold each other: Python finds those late, and a picture is large."""
    frame = VideoFrame.from_ndarray(np.zeros((64, 64), np.uint8), "gray")
    interlaced = flagged(frame, "tff")
    converter = RgbConverter(PixelFormat(32, 32, "stretch"), None, {"centre"})
    converter.convert(interlaced)
    gc.collect()
    gc.disable()
    try:
        for each in (frame, interlaced, interlaced):
            converter.convert(each)
        assert gc.collect() == 0
    finally:
        gc.enable()
