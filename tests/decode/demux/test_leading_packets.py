"""Packets at the front that cannot be decoded are no frames, wherever a recording was cut."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import av
import pytest
import pytest_asyncio

from tests.support.videos import (
    ArrivingFile,
    decode_file,
    decode_plan,
    number_of,
    opened,
    probed,
    render,
    whole,
)
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Each second begins with a key frame, whose leading pictures refer to the second before.
_OPEN_GROUPS = {
    "libx264": {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-adapt=0:scenecut=0"},
    "libx265": {
        "x265-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-adapt=0:scenecut=0:log-level=none"
    },
    "mpeg2video": {"bf": "2", "g": "9", "b": "2000000"},
}
_LATE_BYTES = 188 * 40  # of MPEG-TS, whose packets have 188
_RATES = {"mpeg2video": 25}  # frames a second; MPEG-2 knows a few rates only


@dataclass(frozen=True, slots=True)
class _Clip:
    """Numbered frames in open groups."""

    path: Path
    codec: str
    rate: int


def _clip(codec: str, path: Path, frames: int, size: tuple[int, int] = (128, 64)) -> _Clip:
    rate = _RATES.get(codec, 10)
    return _Clip(
        render(path, frames, rate=rate, size=size, codec=codec, options=_OPEN_GROUPS[codec]), codec, rate
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


@pytest.fixture(scope="module", params=sorted(_OPEN_GROUPS))
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Clip:
    """Of 80 frames."""
    if request.param not in av.codecs_available:
        pytest.skip(f"PyAV has no {request.param}")
    return _clip(request.param, tmp_path_factory.mktemp("clips") / f"{request.param}.mkv", 80)


def _frames(path: Path) -> int:
    """How many come out of a decoder. Not of ffmpeg 5.1, which makes up those of HEVC that are missing."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _without_first(clip: _Clip, path: Path, count: int) -> Path:
    """The same packets but for so many at the front."""
    with av.open(str(clip.path)) as source, av.open(str(path), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number >= count and packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    return path


async def _is_right(pool: DecodePool, clip: _Clip, path: Path) -> None:
    """As many frames as come out, the last ones of the clip: their pictures say so."""
    async with pool.session() as session:
        metadata, units, end = await decode_file(session, path)
    assert metadata.frames == _frames(path) < 80
    assert metadata.fps == pytest.approx(clip.rate, rel=1e-3)
    assert metadata.duration_ns == pytest.approx(metadata.frames / clip.rate * 1e9, abs=2e6)
    assert end.metadata.frames == metadata.frames
    assert not [warning for warning in end.warnings if "decoded" in warning]
    grid = whole(metadata).grids[0]
    first = 80 - metadata.frames
    for (_, unit), pixels in units.items():
        for frame in range(2):
            number = first + int(grid.frame_time_ns(unit, frame) * clip.rate / 1e9 + 1e-3)
            assert number_of(pixels[frame]) == number


@pytest.mark.parametrize("dropped", [3, 23])
@pytest.mark.parametrize("ending", ["mkv", "mp4"])
async def test_packets_before_the_first_key_frame(
    pool: DecodePool, clip: _Clip, tmp_path: Path, ending: str, dropped: int
) -> None:
    await _is_right(pool, clip, _without_first(clip, tmp_path / f"cut.{ending}", dropped))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("ending", ["mkv", "ts"])
async def test_leading_pictures_of_a_copied_part(
    pool: DecodePool, clip: _Clip, tmp_path: Path, ending: str
) -> None:
    """Stamps below zero are lost in Matroska; in MPEG-TS they are moved up, to just behind the first one."""
    if ending == "ts" and clip.codec == "libx264":
        pytest.skip("ffmpeg 5.1 puts no headers before key frames of open groups")
    path = tmp_path / f"cut.{ending}"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-ss", "2.05", "-i", str(clip.path), "-c", "copy"]
    subprocess.run([*command, str(path)], check=True)
    await _is_right(pool, clip, path)
    day = Plan((SamplingGrid(0, 24 * 3600 * NS_PER_S, NS_PER_S, 2, 8, 4),), is_unbounded=True)
    with opened(path) as file:
        async with pool.session() as session:
            metadata = await session.probe(file)
        async with pool.session() as session:
            await session.probe(ArrivingFile(file.fd, file.size_bytes), header_only=True)
            _, end = await decode_plan(session, day)
    assert end.metadata == metadata


async def test_a_broadcast_that_one_joins_late(pool: DecodePool, clip: _Clip, tmp_path: Path) -> None:
    late = tmp_path / "late.ts"
    late.write_bytes(_clip(clip.codec, tmp_path / "all.ts", 80).path.read_bytes()[_LATE_BYTES:])
    await _is_right(pool, clip, late)


async def test_nothing_is_left_out_of_a_whole_video(clip: _Clip) -> None:
    with probed(clip.path) as track:
        assert track.metadata.frames == 80


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
async def test_frames_that_follow_each_other_fast_at_first_count(tmp_path: Path, ending: str) -> None:
    """A recording of a screen, at a variable rate: no more than a frame a second, on average."""
    shown = [*range(10), *range(100, 4000, 100)]
    path = tmp_path / f"clip.{ending}"
    render(path, len(shown), rate=60, times=shown.__getitem__, options={"bf": "2", "b_strategy": "0"})
    with probed(path) as track:
        assert track.metadata.frames == len(shown)


async def test_leading_pictures_are_counted_off_an_index(tmp_path: Path, clip: _Clip) -> None:
    """Of a long mp4, only the first packets are read, and those after the last key frame."""
    long = _clip(clip.codec, tmp_path / "long.mkv", 800, (64, 32))
    path = _without_first(long, tmp_path / "cut.mp4", 3)
    with probed(path) as track:
        assert track.metadata.frames == _frames(path) < 800
