"""Tests of the frame rate of raw streams, which only the codec's headers can state."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import av
import pytest
import pytest_asyncio

from tests.support.videos import decode_file, plan_whole_video, probe_file, read_number, render
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool

pytestmark = pytest.mark.asyncio(loop_scope="module")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

_QUIET = "log-level=none"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


@pytest.mark.parametrize("rate", [10, 120])
@pytest.mark.parametrize(
    ("ending", "codec", "options"),
    [
        ("h264", "libx264", {"bf": "0"}),
        ("h264", "libx264", {"bf": "2"}),
        ("hevc", "libx265", {"x265-params": _QUIET}),
        ("m2v", "mpeg2video", {"strict": "-2"}),  # allows rates that MPEG-2 has no code for
        ("m4v", "mpeg4", {}),
    ],
)
async def test_rate_comes_from_the_codec_headers(
    pool: DecodePool, tmp_path: Path, ending: str, codec: str, options: dict[str, str], rate: int
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    path = render(tmp_path / f"clip.{ending}", 30, rate=rate, codec=codec, options=options)
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, path)
    assert (metadata.frames, metadata.warnings) == (30, ())
    assert metadata.fps == pytest.approx(rate, rel=1e-3)
    assert metadata.duration_ns == pytest.approx(30 / rate * 1e9, abs=1e6)
    grid = plan_whole_video(metadata).grids[0]
    for (_, unit), pixels in units.items():
        for frame in range(2):
            assert read_number(pixels[frame]) == int(grid.frame_time_ns(unit, frame) * rate / 1e9 + 1e-6)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("h264", ["-c:v", "libx264", "-flags", "+ilme+ildct"]),
        ("m2v", ["-c:v", "mpeg2video", "-flags", "+ilme+ildct"]),
        ("obu", ["-c:v", "libsvtav1", "-bsf:v", "av1_metadata=tick_rate=10:num_ticks_per_picture=1"]),
    ],
    ids=["interlaced h264", "interlaced mpeg2", "av1"],
)
async def test_field_or_tick_rate_is_not_the_frame_rate(
    tmp_path: Path, ending: str, options: list[str]
) -> None:
    path = _encoded(tmp_path / f"clip.{ending}", options)
    with probe_file(path) as track:
        metadata = track.metadata
    assert (metadata.frames, metadata.warnings) == (20, ())
    assert (metadata.fps, metadata.duration_ns) == (pytest.approx(10), 2 * 10**9)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("hevc", ["-c:v", "libx265", "-x265-params", f"no-vui-timing-info=1:{_QUIET}"]),
        ("obu", ["-c:v", "libsvtav1"]),
        # Encoders state a variable rate in ticks of the clock.
        (
            "h264",
            ["-c:v", "libx264", "-bsf:v", "h264_metadata=tick_rate=90000:fixed_frame_rate_flag=0"],
        ),
    ],
    ids=["hevc", "av1", "variable h264"],
)
async def test_missing_rate_is_assumed_with_a_warning(
    tmp_path: Path, ending: str, options: list[str]
) -> None:
    path = _encoded(tmp_path / f"clip.{ending}", options)
    with probe_file(path) as track:
        metadata = track.metadata
    assert metadata.warnings == ("the stream states no frame rate; 25 frames a second are assumed",)
    assert (metadata.fps, metadata.frames, metadata.duration_ns) == (pytest.approx(25), 20, 800_000_000)


def _encoded(path: Path, options: list[str]) -> Path:
    """Encode two seconds of 10 frames each."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=2:r=10:s=128x64"]
    subprocess.run([*command, *options, str(path)], check=True, stderr=subprocess.DEVNULL)
    return path
