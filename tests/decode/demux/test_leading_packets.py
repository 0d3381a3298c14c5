"""Tests that packets at the front which cannot be decoded are not counted, wherever a recording was cut."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio
from av.error import InvalidDataError

from tests.support.videos import (
    ArrivingFile,
    decode_file,
    decode_plan,
    numbered_picture,
    open_file,
    plan_whole_video,
    probe_file,
    read_number,
    render,
    shared_clip,
)
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Each second begins with a key frame whose leading pictures refer to the second before.
_OPEN_GROUPS = {
    "libx264": {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-adapt=0:scenecut=0"},
    "libx265": {
        "x265-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-adapt=0:scenecut=0:log-level=none"
    },
    "mpeg2video": {"bf": "2", "g": "9", "b": "2000000"},
}
_LATE_BYTES = 188 * 40  # 40 MPEG-TS packets of 188 bytes
_RAW_ENDINGS = {"libx264": "h264", "libx265": "hevc", "mpeg2video": "m2v"}
_RATES = {"mpeg2video": 25}  # frames a second; MPEG-2 has codes for a few rates only


@dataclass(frozen=True, slots=True)
class _Clip:
    """A clip of numbered frames in open GOPs."""

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
    """A clip of 80 frames."""
    if request.param not in av.codecs_available:
        pytest.skip(f"PyAV has no {request.param}")
    return _clip(request.param, tmp_path_factory.mktemp("clips") / f"{request.param}.mkv", 80)


def _count_frames(path: Path) -> int:
    """Count the frames that PyAV decodes; ffmpeg 5.1 would make up missing HEVC frames."""
    frames = 0
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            with suppress(InvalidDataError):
                frames += len(packet.decode())
    return frames


def _drop_first_packets(clip: _Clip, path: Path, count: int) -> Path:
    """Copy the packets of ``clip`` except the first ``count``."""
    with av.open(str(clip.path)) as source, av.open(str(path), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number >= count and packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    return path


def _drop_first_bytes(path: Path, part: float) -> Path:
    """Copy ``path`` without the first ``part`` of its bytes."""
    data = path.read_bytes()
    cut = path.with_name(f"cut{path.suffix}")
    cut.write_bytes(data[int(part * len(data)) :])
    return cut


def _noisy_clip(path: Path, codec: str, bitrate: str = "300000") -> Path:
    """Render 80 frames of which most, not all, get a timestamp of their own in packs of MPEG-PS."""
    noise = np.random.default_rng(0).integers(0, 255, (16, 256, 3), np.uint8)

    def draw(number: int) -> np.ndarray:
        picture = numbered_picture(number, 256, 128)
        picture[:16] = np.roll(noise, 7 * number, axis=1)
        return picture

    coding = {"bf": "2", "g": "9", "b": bitrate}
    return render(path, 80, rate=25, size=(256, 128), codec=codec, draw=draw, options=coding)


async def _assert_decodes_correctly(pool: DecodePool, clip: _Clip, path: Path) -> None:
    """Assert that all decodable frames come out, and that they are the last ones of the clip."""
    async with pool.session() as session:
        metadata, units, end = await decode_file(session, path)
    assert metadata.frames == _count_frames(path) < 80
    assert metadata.fps == pytest.approx(clip.rate, rel=1e-3)
    assert metadata.duration_ns == pytest.approx(metadata.frames / clip.rate * 1e9, abs=2e6)
    assert end.metadata.frames == metadata.frames
    assert not [warning for warning in end.warnings if "decoded" in warning]
    grid = plan_whole_video(metadata).grids[0]
    first = 80 - metadata.frames
    for (_, unit), pixels in units.items():
        for frame in range(2):
            number = first + int(grid.frame_time_ns(unit, frame) * clip.rate / 1e9 + 1e-3)
            assert read_number(pixels[frame]) == number


@pytest.mark.parametrize("dropped", [3, 23])
@pytest.mark.parametrize("ending", ["mkv", "mp4"])
async def test_packets_before_the_first_key_frame_are_not_counted(
    pool: DecodePool, clip: _Clip, tmp_path: Path, ending: str, dropped: int
) -> None:
    await _assert_decodes_correctly(
        pool, clip, _drop_first_packets(clip, tmp_path / f"cut.{ending}", dropped)
    )


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("ending", ["mkv", "ts"])
async def test_leading_pictures_after_a_stream_copy_are_not_counted(
    pool: DecodePool, clip: _Clip, tmp_path: Path, ending: str
) -> None:
    """Matroska loses timestamps below zero; in MPEG-TS they are moved up to just after the first one."""
    if ending == "ts" and clip.codec == "libx264":
        pytest.skip("ffmpeg 5.1 puts no headers before key frames of open groups")
    path = tmp_path / f"cut.{ending}"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-ss", "2.05", "-i", str(clip.path), "-c", "copy"]
    subprocess.run([*command, str(path)], check=True)
    await _assert_decodes_correctly(pool, clip, path)
    day = Plan((SamplingGrid(0, 24 * 3600 * NS_PER_S, NS_PER_S, 2, 8, 4),), is_unbounded=True)
    with open_file(path) as file:
        async with pool.session() as session:
            metadata = await session.probe(file)
        async with pool.session() as session:
            await session.probe(ArrivingFile(file.fd, file.size_bytes), header_only=True)
            _, end = await decode_plan(session, day)
    assert end.metadata == metadata


async def test_broadcast_joined_in_the_middle(pool: DecodePool, clip: _Clip, tmp_path: Path) -> None:
    late = tmp_path / "late.ts"
    late.write_bytes(_clip(clip.codec, tmp_path / "all.ts", 80).path.read_bytes()[_LATE_BYTES:])
    await _assert_decodes_correctly(pool, clip, late)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.7])
async def test_raw_stream_cut_in_the_middle(
    pool: DecodePool, clip: _Clip, tmp_path: Path, part: float
) -> None:
    raw = _clip(clip.codec, tmp_path / f"all.{_RAW_ENDINGS[clip.codec]}", 80).path
    await _assert_decodes_correctly(pool, clip, _drop_first_bytes(raw, part))


@pytest.mark.parametrize(
    ("bitrate", "part"), [("300000", 0.3), ("300000", 0.5), ("300000", 0.7), ("1000000", 0.3)]
)
async def test_mpeg_program_stream_cut_in_the_middle(
    pool: DecodePool, tmp_path: Path, bitrate: str, part: float
) -> None:
    """The PTS of the first frame, of the last one, or of both may be missing."""
    whole = _noisy_clip(tmp_path / "all.mpg", "mpeg2video", bitrate)
    await _assert_decodes_correctly(pool, _Clip(whole, "mpeg2video", 25), _drop_first_bytes(whole, part))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4"])
async def test_avi_after_a_stream_copy(pool: DecodePool, tmp_path: Path, codec: str) -> None:
    """AVI has no PTS: only the decoder tells which packets yield a frame."""
    whole = _noisy_clip(tmp_path / "all.avi", codec)
    cut = tmp_path / "cut.avi"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-ss", "1.1", "-i", str(whole), "-c", "copy", str(cut)]
    subprocess.run(command, check=True)
    await _assert_decodes_correctly(pool, _Clip(whole, codec, 25), cut)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("RATRACE_wave_f_nm_np1_fr_goo_37.avi", 72),
        ("SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi", 74),
    ],
)
async def test_empty_packet_after_the_first_frame_is_not_counted(
    pool: DecodePool, name: str, frames: int
) -> None:
    """XviD writes a packet of one byte while it waits for the frames that B-frames refer to."""
    path = shared_clip(f"real/{name}")
    async with pool.session() as session:
        metadata, _, end = await decode_file(session, path)
    assert metadata.frames == _count_frames(path) == frames
    assert metadata.duration_ns == pytest.approx(frames / 30 * 1e9, abs=2)
    assert end.warnings == ()


async def test_complete_video_counts_every_frame(clip: _Clip) -> None:
    with probe_file(clip.path) as track:
        assert track.metadata.frames == 80


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
async def test_dense_first_frames_of_a_sparse_recording_are_counted(tmp_path: Path, ending: str) -> None:
    """A screen recording at a variable rate has at most one frame a second on average."""
    shown = [*range(10), *range(100, 4000, 100)]
    path = tmp_path / f"clip.{ending}"
    render(path, len(shown), rate=60, times=shown.__getitem__, options={"bf": "2", "b_strategy": "0"})
    with probe_file(path) as track:
        assert track.metadata.frames == len(shown)


async def test_index_statistics_exclude_leading_pictures(tmp_path: Path, clip: _Clip) -> None:
    """Of a long mp4, only the first packets and those after the last key frame are read."""
    long = _clip(clip.codec, tmp_path / "long.mkv", 800, (64, 32))
    path = _drop_first_packets(long, tmp_path / "cut.mp4", 3)
    with probe_file(path) as track:
        assert track.metadata.frames == _count_frames(path) < 800
