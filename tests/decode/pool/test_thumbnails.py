"""Thumbnails of whole videos, ranges, views and uploads that are not complete, from a sandboxed worker."""

import asyncio
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.decode.pool.test_slow_uploads import SlowFile
from tests.support.preprocessing import preprocessing
from tests.support.videos import (
    SMALL,
    decode_plan,
    open_file,
    plan_whole_video,
    read_number,
    remux,
    render,
    shared_clip,
    single_window,
)
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import MAX_THUMBNAIL_BYTES, Thumbnail

_SECOND = 10**9
_STREAMED = {"mkv": {}, "ts": {}, "mp4": {"movflags": "empty_moov+frag_keyframe"}}


def _picture(thumbnail: Thumbnail) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(thumbnail.jpeg)))


async def _thumbnails(
    pool: DecodePool, path: Path, number: int, plan: Plan | None = None
) -> tuple[Thumbnail, ...]:
    async with pool.session() as session:
        with open_file(path) as file:
            metadata = await session.probe(file)
            _, end = await decode_plan(session, plan or plan_whole_video(metadata), thumbnails=number)
    return end.thumbnails


async def test_thumbnails_show_the_frames_at_their_times(pool: DecodePool, clip: Path) -> None:
    """The clip has 200 frames in 20 s; the plan asks for 8 in a second."""
    thumbnails = await _thumbnails(pool, clip, 20)
    assert len(thumbnails) == 20
    assert {(thumbnail.width, thumbnail.height) for thumbnail in thumbnails} == {(128, 64)}
    for thumbnail in thumbnails:
        assert read_number(_picture(thumbnail)) == thumbnail.time_ns * 10 // _SECOND
    gaps = np.diff([thumbnail.time_ns for thumbnail in thumbnails])
    assert gaps.min() == gaps.max() == _SECOND


async def test_none_are_made_unless_asked_for(pool: DecodePool, clip: Path) -> None:
    assert await _thumbnails(pool, clip, 0) == ()


async def test_single_frame_is_one_thumbnail(pool: DecodePool, tmp_path: Path) -> None:
    (only,) = await _thumbnails(pool, render(tmp_path / "clip.mp4", 1), 60)
    assert only.time_ns < _SECOND / 10


async def test_ranges_are_covered_alone(pool: DecodePool, clip: Path) -> None:
    plan = Plan((single_window(2, 4), single_window(15, 17)))
    thumbnails = await _thumbnails(pool, clip, 8, plan)
    numbers = [read_number(_picture(thumbnail)) for thumbnail in thumbnails]
    assert len(numbers) == 8
    assert all(20 <= number < 40 for number in numbers[:4])
    assert all(150 <= number < 170 for number in numbers[4:])


@pytest.mark.parametrize("shared_memory_bytes", [2 * MIB, MIB], ids=["one pass", "passes"])
async def test_overlapping_views_share_the_number(clip: Path, shared_memory_bytes: int) -> None:
    """A unit of 2 frames is 384 KiB: two fit into a MiB, so that four views at once need several passes."""
    view = partial(SamplingGrid, 0, 12 * _SECOND, 2 * _SECOND, 2, 4, 4, True)
    plan = Plan(tuple(view(int(start * 1e9)) for start in (0.4, 0.45, 0.8, 1.7, 5.0, 9.9)))
    config = DecodeConfig(workers=1, shared_memory_bytes=shared_memory_bytes)
    async with DecodePool(config) as pool, pool.session() as session:
        with open_file(clip) as file:
            await session.probe(file)
            _, end = await decode_plan(session, plan, preprocessing(256, 256, "stretch"), thumbnails=12)
    times = [thumbnail.time_ns for thumbnail in end.thumbnails]
    assert 6 <= len(times) <= 12
    assert times == sorted(set(times))
    assert times[0] < 2 * _SECOND
    assert times[-1] > 10 * _SECOND
    for thumbnail in end.thumbnails:
        assert read_number(_picture(thumbnail)) == thumbnail.time_ns * 10 // _SECOND


@pytest.mark.parametrize("suffix", _STREAMED)
async def test_upload_of_unknown_duration_is_covered_to_its_end(tmp_path: Path, suffix: str) -> None:
    """Decoding begins with half of the file; Matroska's header states the duration, the others' do not."""
    path = remux(render(tmp_path / "whole.mp4", 200), tmp_path / f"clip.{suffix}", _STREAMED[suffix])
    file = SlowFile(path, path.stat().st_size // 2)
    plan = Plan((SamplingGrid(0, 3600 * _SECOND, 2 * _SECOND, 2, 8, 4),), is_unbounded=True)
    async with DecodePool(DecodeConfig(workers=1)) as pool, pool.session(file) as session:
        await session.probe(file, header_only=True)
        decoding = asyncio.create_task(decode_plan(session, plan, SMALL, thumbnails=10))
        await file.is_awaited.wait()
        file.complete()
        _, end = await decoding
    numbers = [read_number(_picture(thumbnail)) for thumbnail in end.thumbnails]
    assert 5 <= len(numbers) <= 10
    assert numbers == [thumbnail.time_ns * 10 // _SECOND for thumbnail in end.thumbnails]
    assert np.diff([-1, *numbers, 200]).max() <= 45


async def test_header_that_lies_about_the_duration_costs_no_thumbnails(pool: DecodePool) -> None:
    """The header says 65 minutes, the frames end after 8 s."""
    with open_file(shared_clip("odd/mp4ff/v300_multiple_segments.mp4")) as file:
        plan = Plan((SamplingGrid(0, 7200 * _SECOND, 2 * _SECOND, 2, 8, 4),), is_unbounded=True)
        async with pool.session(file) as session:
            metadata = await session.probe(file, header_only=True)
            _, end = await decode_plan(session, plan, thumbnails=10)
    assert metadata.duration_ns > 3600 * _SECOND > 60 * _SECOND > end.end_ns
    assert 5 <= len(end.thumbnails) <= 10


async def test_pictures_of_another_size_keep_their_own_shape(pool: DecodePool) -> None:
    thumbnails = await _thumbnails(pool, shared_clip("odd/fate/frame_size_change.mp4"), 10)
    assert len({(thumbnail.width, thumbnail.height) for thumbnail in thumbnails}) > 1
    assert all(_picture(each).shape == (each.height, each.width, 3) for each in thumbnails)


async def test_noise_stays_within_the_limit_of_bytes(pool: DecodePool, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)

    def draw(number: int) -> np.ndarray:
        return noise.integers(0, 2, (160, 160, 3), np.uint8) * 255

    path = render(
        tmp_path / "clip.mp4", 5, size=(160, 160), pix_fmt="yuv444p", options={"qp": "0"}, draw=draw
    )
    thumbnails = await _thumbnails(pool, path, 60)
    assert len(thumbnails) == 5
    sizes = [len(thumbnail.jpeg) for thumbnail in thumbnails]
    assert MAX_THUMBNAIL_BYTES / 2 < max(sizes) <= MAX_THUMBNAIL_BYTES


@pytest.mark.parametrize("size", [(2, 2), (16, 4096), (4096, 16), (160, 161), (161, 160)])
async def test_extreme_shapes_have_thumbnails(
    pool: DecodePool, tmp_path: Path, size: tuple[int, int]
) -> None:
    grey = np.full((size[1], size[0], 3), 128, np.uint8)
    path = render(tmp_path / "clip.mkv", 1, size=size, codec="ffv1", draw=lambda _: grey)
    (thumbnail,) = await _thumbnails(pool, path, 1)
    width, height = size
    scale = min(1, 160 / max(size))
    assert abs(thumbnail.width - width * scale) <= 1
    assert abs(thumbnail.height - height * scale) <= 1
    assert np.abs(_picture(thumbnail).astype(int) - 128).max() <= 4
