"""Tests that each request gets the frame shown then, also in damaged and truncated videos."""

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import closing
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio

from tests.support.preprocessing import preprocessing
from tests.support.videos import (
    decode_file,
    decode_limits,
    decode_plan,
    plan_whole_video,
    read_number,
    render,
    single_window,
)
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.demux.byte_source import ByteSource
from tubelet.service.decode.demux.container import BUFFER_BYTES
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.probe.probe import probe
from tubelet.service.decode.protocol import VideoRejected
from tubelet.service.errors import CorruptVideo
from tubelet.service.types.plan import Plan, SamplingGrid


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        yield pool


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("mp4", {"bf": "2", "g": "12"}),
        ("mkv", {"bf": "3", "g": "250"}),
        ("ts", {"bf": "2", "g": "10"}),
        ("avi", {"bf": "2", "g": "12"}),
        ("flv", {"bf": "0", "g": "5"}),
        ("h264", {"bf": "0", "g": "5"}),
    ],
)
async def test_each_request_gets_the_frame_shown_then(
    pool: DecodePool, tmp_path: Path, ending: str, options: dict[str, str]
) -> None:
    rate = 25 if ending == "h264" else 10  # raw H.264 has no timestamps: 25 frames a second are assumed
    path = render(tmp_path / f"clip.{ending}", 100, rate=rate, options=options)
    ranges = Plan((single_window(0.05, 0.9), single_window(2.12, 2.13), single_window(3.0, 3.9)))
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, path)
        some, _ = await decode_plan(session, ranges)
    assert metadata.frames == 100
    assert metadata.duration_ns == pytest.approx(100 / rate * 1e9, abs=1e6)
    assert metadata.fps == pytest.approx(rate, rel=1e-3)
    for plan, got in ((plan_whole_video(metadata), units), (ranges, some)):
        for (grid, unit), pixels in got.items():
            for frame in range(2):
                expected = plan.grids[grid].frame_time_ns(unit, frame) * rate // 10**9
                assert read_number(pixels[frame]) == expected
    assert sorted(some) == [(grid, unit) for grid in range(3) for unit in range(4)]


@pytest.mark.parametrize("offsets_s", [(0, 100), (100, 0), (0, 40_000, 50), (0, 0, 0)], ids=str)
async def test_joined_recordings_follow_each_other(
    pool: DecodePool, tmp_path: Path, offsets_s: tuple[int, ...]
) -> None:
    """The recordings are joined byte after byte, as files are."""
    one = render(tmp_path / "one.ts", 20)
    joined = tmp_path / "joined.ts"
    with joined.open("wb") as out:
        for offset_s in offsets_s:
            command = ["ffmpeg", "-v", "error", "-i", str(one), "-c", "copy"]
            command += ["-output_ts_offset", str(offset_s), "-f", "mpegts", "-"]
            out.write(subprocess.run(command, check=True, capture_output=True).stdout)
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, joined)
    assert metadata.frames == 20 * len(offsets_s)
    assert metadata.duration_ns == pytest.approx(2e9 * len(offsets_s), abs=1e8)
    assert any("timestamps jump" in warning for warning in metadata.warnings)
    numbers = [read_number(frame) for _, unit in sorted(units.items()) for frame in unit]
    assert [after - before for before, after in pairwise(numbers) if after < before] == [-19] * (
        len(offsets_s) - 1
    )


async def test_seek_is_not_a_discontinuity(pool: DecodePool, tmp_path: Path) -> None:
    path = render(tmp_path / "clip.ts", 250, options={"g": "10"})
    plan = Plan((single_window(0, 1), single_window(20, 21)))
    async with pool.session() as session:
        _, units, _ = await decode_file(session, path, plan)
    assert sorted(units) == [(grid, unit) for grid in range(2) for unit in range(4)]
    for (grid, unit), pixels in units.items():
        for frame in range(2):
            assert read_number(pixels[frame]) == plan.grids[grid].frame_time_ns(unit, frame) // 10**8


async def test_variable_rate_shows_each_frame_until_the_next(pool: DecodePool, tmp_path: Path) -> None:
    shown = [0, 1, 2, 3, 20, 21, 22, 50, 51, 60]  # display times in tenths of a second
    path = render(tmp_path / "clip.mkv", 10, times=shown.__getitem__)
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, path)
    grid = plan_whole_video(metadata).grids[0]
    for (_, unit), pixels in units.items():
        for frame in range(2):
            tenths = grid.frame_time_ns(unit, frame) / 10**8
            assert read_number(pixels[frame]) == sum(time <= tenths for time in shown) - 1


@pytest.mark.parametrize("shared_memory_bytes", [2 * MIB, MIB], ids=["one pass", "passes"])
async def test_overlapping_views_get_their_own_frames(clip: Path, shared_memory_bytes: int) -> None:
    starts = (0.4, 0.45, 0.8, 1.7, 2.0, 9.9, 9.9, 9.9)
    view = partial(SamplingGrid, 0, 12 * 10**9, 2 * 10**9, 2, 4, 4, True)
    plan = Plan(tuple(view(int(start * 1e9)) for start in starts))
    big = preprocessing(256, 256, "stretch")  # a unit of 2 frames is 384 KiB: two slots in a MiB
    config = DecodeConfig(workers=1, shared_memory_bytes=shared_memory_bytes)
    async with DecodePool(config) as pool, pool.session() as session:
        _, units, end = await decode_file(session, clip, plan, big)
    assert sorted(units) == [(grid, unit) for grid in range(8) for unit in range(4)]
    for (grid, unit), pixels in units.items():
        for frame in range(2):
            assert read_number(pixels[frame]) == plan.grids[grid].frame_time_ns(unit, frame) // 10**8
    assert end.end_ns == 20 * 10**9
    # The last view ends at frame 120, and the last view of the first pass at frame 86.
    assert end.frames_decoded < (120 if shared_memory_bytes > MIB else 120 + 86)


async def test_passes_after_the_decodable_part_are_cut_off(tmp_path: Path) -> None:
    path = render(tmp_path / "clip.avi", 100, codec="mpeg4", options={"g": "10"})
    damaged = bytearray(path.read_bytes())
    first, last = len(damaged) * 6 // 10, damaged.rindex(b"idx1")
    damaged[first:last] = bytes(last - first)
    path.write_bytes(damaged)
    view = partial(SamplingGrid, 0, 10 * 10**9, 10**9, 2, 4, 4, True)
    plan = Plan((view(0), *[view(9 * 10**9)] * 3))
    config = DecodeConfig(workers=1, shared_memory_bytes=MIB)
    async with DecodePool(config) as pool, pool.session() as session:
        _, units, end = await decode_file(session, path, plan, preprocessing(256, 256, "stretch"))
    assert 10**9 < end.end_ns < 9 * 10**9
    assert sorted(units) == [(0, unit) for unit in range(4)]


async def test_late_range_is_decoded_from_its_key_frame(pool: DecodePool, tmp_path: Path) -> None:
    path = render(tmp_path / "clip.mp4", 200, options={"g": "10"})
    async with pool.session() as session:
        _, units, end = await decode_file(session, path, Plan((single_window(18.0, 18.8),)))
    assert [read_number(pixels[0]) for pixels in units.values()] == [180, 182, 184, 186]
    assert end.frames_decoded < 20


async def test_single_frame_fills_a_window(pool: DecodePool, tmp_path: Path) -> None:
    path = render(tmp_path / "clip.mp4", 1, rate=10)
    async with pool.session() as session:
        metadata, units, end = await decode_file(session, path)
    assert metadata.duration_ns == end.end_ns == 10**8
    assert end.frames_decoded == 1
    assert len(units) == 8
    assert all(np.array_equal(pixels, units[0, 0]) for pixels in units.values())


async def test_truncated_file_is_cut_where_its_frames_end(pool: DecodePool, tmp_path: Path) -> None:
    whole_file = render(tmp_path / "whole.mkv", 100, options={"g": "10"})
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole_file.read_bytes()[: whole_file.stat().st_size * 6 // 10])
    async with pool.session() as session:
        metadata, units, end = await decode_file(session, path)
    assert any("header says 10.000 s" in warning for warning in metadata.warnings)
    plan = plan_whole_video(metadata).cut(end.end_ns)
    assert plan is not None
    assert 0 < end.end_ns <= metadata.duration_ns < 9 * 10**9
    assert set(units) >= {(0, unit) for unit in range(plan.grids[0].num_units)}


async def test_damaged_video_is_decoded_with_a_warning(pool: DecodePool, tmp_path: Path) -> None:
    whole_file = render(tmp_path / "whole.avi", 100, codec="mpeg4", options={"g": "10"})
    damaged = bytearray(whole_file.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 3000] = bytes(3000)
    path = tmp_path / "damaged.avi"
    path.write_bytes(damaged)
    async with pool.session() as session:
        metadata, units, end = await decode_file(session, path)
    assert len(units) == plan_whole_video(metadata).grids[0].num_units
    assert read_number(units[0, 0][0]) == 0
    assert metadata.warnings + end.warnings


async def test_packet_with_a_huge_size_ends_the_video(pool: DecodePool, tmp_path: Path) -> None:
    path = render(tmp_path / "clip.ivf", 20, codec="libvpx")
    content = bytearray(path.read_bytes())
    start = 32  # the file's header; each packet has a header of 12 bytes that begins with its size
    for _ in range(9):
        start += 12 + int.from_bytes(content[start : start + 4], "little")
    content[start : start + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    async with pool.session() as session:
        metadata, units, _ = await decode_file(session, path)
    assert any("is truncated" in warning for warning in metadata.warnings)
    assert metadata.duration_ns == 9 * 10**8
    assert read_number(units[0, 7][1]) == 8


class _CountingSource(ByteSource):
    openings = 0

    def read(self, offset: int, count: int) -> bytes:
        self.openings += offset == 0 and count == BUFFER_BYTES  # FFmpeg's first read
        return super().read(offset, count)


@pytest.mark.parametrize("streams", [1, 2, 12])
async def test_file_of_damaged_streams_is_read_three_times_at_most(tmp_path: Path, streams: int) -> None:
    path = tmp_path / "clip.mkv"
    with (
        av.open(str(render(tmp_path / "coded.mp4", 10, codec="mpeg4"))) as coded,
        av.open(str(path), "w") as file,
    ):
        damaged = [file.add_stream_from_template(coded.streams.video[0]) for _ in range(streams)]
        for stream in damaged:
            packet = av.Packet(b"\x01" * 100)
            packet.pts = packet.dts = 0
            packet.time_base, packet.stream = Fraction(1, 10), stream
            file.mux(packet)
    with (
        closing(_CountingSource(os.open(path, os.O_RDONLY))) as source,
        pytest.raises(VideoRejected, match="none of the video's"),
    ):
        probe(source, decode_limits(), lambda: None)
    assert 1 <= source.openings <= 3


async def test_plan_after_the_last_frame_is_rejected(pool: DecodePool, tmp_path: Path) -> None:
    path = render(tmp_path / "clip.mp4", 10)
    late = Plan((SamplingGrid(20 * 10**9, 21 * 10**9, 10**9, 2, 4, 4),))
    async with pool.session() as session:
        with pytest.raises(CorruptVideo):
            await decode_file(session, path, late)
