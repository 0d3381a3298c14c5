"""Tests that interlaced frames show one moment without combs, where it lies, as bwdif makes them."""

import gc
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from av.video.frame import VideoFrame

from tests.support.ffmpeg_reference import EXACT
from tests.support.preprocessing import preprocessing
from tests.support.sample_clip import Camera, camera_move, render_view, town
from tests.support.videos import decode_file, ffmpeg_frames, mark_interlaced
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pixels.rgb_converter import RgbConverter
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import VideoMetadata

_FRAMES, _RATE = 4, 25
_BY_SWSCALE = preprocessing(224, 224, "stretch")
_BY_PILLOW = preprocessing(224, 224, "stretch", resample="bilinear")  # its colours are darker by 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


def _write_interlaced_clip(path: Path, size: tuple[int, int], first: str, stored: str) -> None:
    """Write a fast pan over the town in fields, low-pass filtered; ``first`` is the field shown first."""
    scene, (width, height) = town(), size
    turn = camera_move(Camera(500, 500), Camera(620, 510), _FRAMES / _RATE, fps=2 * _RATE)
    pixels = b"".join(render_view(scene, camera, size).tobytes() for camera in turn)
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
async def test_frames_look_like_bwdif(
    pool: DecodePool, tmp_path: Path, size: tuple[int, int], stored: str, first: str
) -> None:
    path = tmp_path / "clip.mkv"
    _write_interlaced_clip(path, size, first, stored)
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
    """Measure how much lines differ from those around them."""
    wide = pixels.astype(int)
    return float(np.abs(2 * wide[1:-1] - wide[:-2] - wide[2:]).mean())


@pytest.mark.parametrize("height", [16, 32, 64, 200])
@pytest.mark.parametrize(("lines", "within"), [(64, 0.5), (63, 2.5)])  # an odd last line is cut off
@pytest.mark.parametrize("parity", ["tff", "bff"])
def test_field_is_aligned_with_the_progressive_picture(
    parity: str, lines: int, height: int, within: float
) -> None:
    ramp = np.arange(lines, dtype=np.uint8)[:, None].repeat(64, axis=1) * 4  # half a line changes values by 2
    frame = VideoFrame.from_ndarray(ramp, "gray")
    converter = RgbConverter(preprocessing(height, 64, "stretch"), None, {"centre"})
    still = converter.convert(frame).crop("centre").astype(int)
    field = converter.convert(mark_interlaced(frame, parity)).crop("centre").astype(int)
    assert np.abs(still - field)[height // 8 : -height // 8].mean() < within


def test_converted_frames_are_released_without_a_collection() -> None:
    """Reference cycles would keep large pictures until the garbage collector runs."""
    frame = VideoFrame.from_ndarray(np.zeros((64, 64), np.uint8), "gray")
    interlaced = mark_interlaced(frame, "tff")
    converter = RgbConverter(preprocessing(32, 32, "stretch"), None, {"centre"})
    converter.convert(interlaced)
    gc.collect()
    gc.disable()
    try:
        for each in (frame, interlaced, interlaced):
            converter.convert(each)
        assert gc.collect() == 0
    finally:
        gc.enable()
