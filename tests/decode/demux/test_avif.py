"""Tests of animated AVIF, which has a still picture beside the track of all frames."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.videos import decode_file, plan_whole_video, probe_file, read_number, render
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"),
]

_ALPHA = "[0:v]split[colour][c];[c]format=yuva420p,alphaextract,format=gray[alpha]"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


def _avif(path: Path, frames: int, options: list[str]) -> Path:
    clip = render(path.with_suffix(".mp4"), frames)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(clip), *options]
    command += ["-c:v", "libaom-av1", "-cpu-used", "8"]
    subprocess.run([*command, str(path)], check=True, stderr=subprocess.DEVNULL)
    return path


@pytest.mark.parametrize(
    "options",
    [[], ["-filter_complex", _ALPHA, "-map", "[colour]", "-map", "[alpha]"]],
    ids=["opaque", "with transparency"],
)
async def test_animated_avif_decodes_all_frames(pool: DecodePool, tmp_path: Path, options: list[str]) -> None:
    path = _avif(tmp_path / "animated.avif", 20, options)
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, path)
    assert (metadata.frames, metadata.duration_ns, metadata.warnings) == (20, 2 * 10**9, ())
    grid = plan_whole_video(metadata).grids[0]
    for (_, unit), pixels in units.items():
        for frame in range(2):
            assert read_number(pixels[frame]) == grid.frame_time_ns(unit, frame) // 10**8


async def test_still_avif_has_one_frame(tmp_path: Path) -> None:
    with probe_file(_avif(tmp_path / "still.avif", 1, ["-still-picture", "1"])) as track:
        assert (track.metadata.frames, track.metadata.duration_ns) == (1, 10**9)
