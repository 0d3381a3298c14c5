"""Tests that the decoder decodes only what a plan needs, and gives the same frames as a full decoding."""

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.videos import (
    SMALL,
    copy_and_release,
    decode_file,
    open_file,
    read_number,
    render,
    single_window,
)
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import NS_PER_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

_FRAMES, _RATE = 150, 25
_X264 = {"threads": "1", "sc_threshold": "0", "b_strategy": "0"}
_CODINGS = {
    "no b-frames": ("mp4", "libx264", _X264 | {"bf": "0", "g": "30"}),
    "b-frames": ("mp4", "libx264", _X264 | {"bf": "3", "g": "30", "x264-params": "b-pyramid=none"}),
    "b-pyramid, one group": ("mp4", "libx264", _X264 | {"bf": "8", "g": "500", "x264-params": "b-pyramid=2"}),
    "open groups": ("mkv", "libx264", _X264 | {"bf": "3", "g": "20", "x264-params": "open-gop=1"}),
    "intra refresh": ("mkv", "libx264", _X264 | {"bf": "0", "g": "30", "x264-params": "intra-refresh=1"}),
    "intra only": ("mkv", "libx264", _X264 | {"g": "1"}),
    "matroska": ("mkv", "libx264", _X264 | {"bf": "3", "g": "40"}),
    "mpegts": ("ts", "libx264", _X264 | {"bf": "3", "g": "25"}),
    "hevc": ("mp4", "libx265", {"x265-params": "keyint=40:bframes=4:log-level=none:pools=none"}),
    "vp8": ("webm", "libvpx", {"g": "40", "auto-alt-ref": "1", "lag-in-frames": "10"}),
    "vp9": ("webm", "libvpx-vp9", {"g": "40", "auto-alt-ref": "1", "lag-in-frames": "10", "cpu-used": "8"}),
    "av1": ("mkv", "libsvtav1", {"g": "40", "preset": "12"}),
    "mpeg4": ("mp4", "mpeg4", {"bf": "2", "g": "30"}),
    "mpeg4 in avi": ("avi", "mpeg4", {"bf": "2", "g": "30"}),
    "mpeg2": ("mp4", "mpeg2video", {"bf": "2", "g": "15"}),
    "mjpeg": ("avi", "mjpeg", {}),
    "utvideo": ("avi", "utvideo", {}),
    "jpeg2000": ("mov", "jpeg2000", {}),
    "wmv2": ("asf", "wmv2", {"g": "30"}),
    "msmpeg4": ("avi", "msmpeg4", {"g": "30"}),
}


@pytest.fixture(scope="module", params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(threads: int) -> AsyncIterator[DecodePool]:
    async with DecodePool(DecodeConfig(workers=1, threads=threads)) as pool:
        yield pool


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("codings")


def _clip(folder: Path, coding: str) -> Path:
    ending, codec, options = _CODINGS[coding]
    path = folder / f"{coding}.{ending}"
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    if not path.exists():
        render(path, _FRAMES, rate=_RATE, codec=codec, pix_fmt=pix_fmt, options=options)
    return path


def _random_plan(seed: int) -> Plan:
    """Return up to four windows of random length and position, dense or sparse."""
    chance = random.Random(seed)
    last = 1000 * _FRAMES // _RATE
    cuts = sorted(chance.sample(range(1, last), 2 * chance.randint(1, 4)))
    ranges = zip(cuts[::2], cuts[1::2], strict=True)
    return Plan(
        tuple(single_window(start / 1000, end / 1000, 2, chance.randint(1, 8)) for start, end in ranges)
    )


@pytest.mark.parametrize("coding", _CODINGS)
async def test_random_plans_get_the_requested_frames(pool: DecodePool, clips: Path, coding: str) -> None:
    path = _clip(clips, coding)
    for seed in range(8):
        plan = _random_plan(seed)
        async with pool.session() as session:
            _, units, end = await decode_file(session, path, plan)
        assert end.warnings == ()
        for (grid, unit), pixels in units.items():
            for frame in range(2):
                expected = plan.grids[grid].frame_time_ns(unit, frame) * _RATE // NS_PER_S
                assert read_number(pixels[frame]) == expected, f"seed {seed}"
        assert sorted(units) == [
            (number, unit) for number, grid in enumerate(plan.grids) for unit in range(grid.num_units)
        ]


@pytest.mark.parametrize(
    ("coding", "at_most"),
    [
        ("no b-frames", 30),  # for each time the key frame and the 5 frames after it
        ("b-frames", 20),  # I0, P4, P8, b5
        ("intra only", 5),
        ("mjpeg", 5),
        ("utvideo", 5),
        ("jpeg2000", 5),
        ("wmv2", 60),
        ("msmpeg4", 60),
        ("matroska", 60),
        ("mpegts", 60),
        ("hevc", 80),
        ("mpeg4", 60),
        ("mpeg2", 40),
    ],
)
async def test_few_requests_decode_few_frames(
    pool: DecodePool, clips: Path, coding: str, at_most: int, threads: int
) -> None:
    """One frame in each second, 5 frames after a key frame if there are 30 in a GOP."""
    path = _clip(clips, coding)
    second = NS_PER_S
    times = [number * second * 30 // _RATE + second * 5 // _RATE for number in range(5)]
    plan = Plan(tuple(SamplingGrid(time, time + second // 100, second // 100, 1, 1, 1) for time in times))
    async with pool.session() as session:
        _, units, end = await decode_file(session, path, plan)
    assert [read_number(pixels[0]) for pixels in units.values()] == [5, 35, 65, 95, 125]
    # The probe decodes the first frame, and each additional thread has begun another one by then.
    assert end.frames_decoded <= at_most + threads


@pytest.mark.parametrize(
    ("shown", "expected", "off"),
    [
        # Key frames are 0, 30, 60, 90 and 120; four frames are requested, in the centres of quarters.
        ((0, 120), [0, 30, 60, 90], 15),  # 15, 45, 75 and 105 are midway between two key frames
        ((2, 122), [30, 60, 90, 120], 13),
        ((0, 40), [0, 15, 30, 30], 5),  # 5, 15, 25, 35; 15 is farther from a key frame than half of 10
    ],
)
async def test_fast_takes_key_frames_within_half_the_spacing(
    pool: DecodePool, clips: Path, shown: tuple[int, int], expected: list[int], off: int
) -> None:
    path = _clip(clips, "b-frames")
    start, end = (frame * NS_PER_S // _RATE for frame in shown)
    plan = Plan((SamplingGrid(start, end, end - start, 1, 4, 4),))
    async with pool.session() as session:
        with open_file(path) as file:
            await session.probe(file)
            found = [
                read_number(copy_and_release(unit)[0])
                async for unit in session.decode(plan, SMALL, fast=True)
            ]
    assert session.end is not None
    assert found == expected
    assert session.end.max_frame_offset_ns == off * NS_PER_S // _RATE


async def test_overlapping_views_can_snap_to_one_key_frame(pool: DecodePool, clips: Path) -> None:
    """The first view's last unit and the second view's first one end at the same key frame."""
    path = _clip(clips, "intra only")
    views = (int(at * NS_PER_S) for at in (0, 1.49))
    grids = [
        replace(single_window(0, 4), window_ns=2 * NS_PER_S, one_segment=True, view_ns=at) for at in views
    ]
    async with pool.session() as session:
        with open_file(path) as file:
            await session.probe(file)
            found = []
            async for unit in session.decode(Plan(tuple(grids)), SMALL, fast=True):
                found.append((unit.grid, unit.unit))
                unit.release()
    assert sorted(found) == [(grid, unit) for grid in range(len(grids)) for unit in range(4)]


async def test_fast_decodes_one_frame_for_each_key_frame_taken(pool: DecodePool, clips: Path) -> None:
    path = _clip(clips, "no b-frames")
    plan = Plan((SamplingGrid(0, 6 * NS_PER_S, 6 * NS_PER_S, 1, 5, 5),))
    async with pool.session() as session:
        with open_file(path) as file:
            await session.probe(file)
            found = [
                read_number(copy_and_release(unit)[0])
                async for unit in session.decode(plan, SMALL, fast=True)
            ]
    assert session.end is not None
    assert found == [0, 30, 60, 90, 120]
    assert session.end.frames_decoded == 5


@pytest.mark.parametrize(
    ("coding", "place"),
    [
        ({"x264-params": "open-gop=1"}, lambda number: number),
        ({}, lambda number: number + number**2 // 400),
    ],
    ids=["open groups", "a frame rate that changes"],
)
async def test_mp4_index_finds_key_frames_of_varying_delay(
    pool: DecodePool, tmp_path: Path, coding: dict[str, str], place: Callable[[int], int], threads: int
) -> None:
    """So many packets are not all read, and the index does not state when key frames are shown."""
    frames, path = 600, tmp_path / "clip.mp4"
    render(path, frames, rate=_RATE, options=_X264 | {"bf": "3", "g": "30"} | coding, times=place)
    plan = Plan((single_window(0, place(frames) / _RATE, 1, 12),))
    async with pool.session() as session:
        _, units, end = await decode_file(session, path, plan)
    async with pool.session() as session:
        with open_file(path) as file:
            await session.probe(file)
            async for unit in session.decode(plan, SMALL, fast=True):
                unit.release()
        assert session.end is not None
        assert session.end.frames_decoded <= 12 + 2 * threads
    wanted = [plan.grids[0].frame_time_ns(unit, 0) * _RATE // NS_PER_S for _, unit in units]
    shown = [max(number for number in range(frames) if place(number) <= time) for time in wanted]
    assert [read_number(pixels[0]) for pixels in units.values()] == [number % 256 for number in shown]
    assert end.frames_decoded < frames / 3
