"""A long video is decoded by several workers: the same frames, warnings and rows as by one."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import av
import pytest

from tests.support.preprocessing import SMALL
from tests.support.videos import copy_and_release, open_file, plan_whole_video, read_number, render
from tubelet.service.batch.classifier import open_batch_classifier
from tubelet.service.batch.plan import make_plan
from tubelet.service.batch.rows import VideoRows
from tubelet.service.batch.source.items import file_item
from tubelet.service.config.config import MIB, DecodeConfig, load_config
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.session import DecodeSession
from tubelet.service.errors import DecoderCrashed
from tubelet.service.metrics import Metrics
from tubelet.service.pipeline import window_stream
from tubelet.service.pipeline.plan_parts import split_plan
from tubelet.service.pipeline.split_decoding import SplitDecoding, SplitJob
from tubelet.service.pipeline.windows import QueuedUnit
from tubelet.service.types.request import Options, Sliding
from tubelet.service.types.video import NS_PER_S, DecodeSummary, UnitFrames, VideoFile

_RATE, _FRAMES = 5, 650  # 130 s
_TWO = DecodeConfig(workers=2, shared_memory_bytes=MIB)
_SLOTS = MIB // (2 * 64 * 64 * 3)  # units that one worker has room for
_Numbers = list[tuple[int, list[int]]]
"""The units that came, in order: their numbers, and those that their frames show."""


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("long") / "clip.mp4", _FRAMES, rate=_RATE, options={"g": "40"})


def damaged(clip: Path, path: Path) -> Path:
    """Write ``clip`` with a damaged packet in the middle, far from a key frame."""
    with av.open(str(clip)) as container:
        packet = [each for each in container.demux(video=0) if each.pos is not None][_FRAMES // 2 + 15]
    content = bytearray(clip.read_bytes())
    assert packet.pos is not None
    content[packet.pos + 5 : packet.pos + packet.size] = bytes(packet.size - 5)
    path.write_bytes(content)
    return path


class Units:
    """Takes units in place of the engine; holds them until a second worker must have sent some.

    Then it calls ``on_second``.
    """

    def __init__(self, on_second: Callable[[], None] = lambda: None) -> None:
        self.shown: dict[int, list[int]] = {}  # by the future of the unit
        self._on_second = on_second
        self._held: list[UnitFrames] = []

    def encode(self, unit: UnitFrames) -> "asyncio.Future[object]":
        """Note the numbers that the frames show."""
        embedding: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.shown[id(embedding)] = [read_number(each) for each in unit.pixels]
        embedding.set_result(embedding)
        self._held.append(unit)
        if len(self.shown) == _SLOTS + 1:
            self._on_second()
        if len(self.shown) > _SLOTS:
            while self._held:
                self._held.pop().release()
        return embedding


async def decode_split(pool: DecodePool, file: VideoFile, units: Units) -> tuple[_Numbers, DecodeSummary]:
    """Decode a file in parts by two workers; return the units, and the summary."""
    found: _Numbers = []
    async with pool.session() as own:
        plan = plan_whole_video(await own.probe(file))
        assert own.knows_key_frames
        job = SplitJob(file, plan, split_plan(plan, 2), SMALL, False, units.encode)  # type: ignore[arg-type]
        split = SplitDecoding(job, pool, 1)
        async with aclosing(split.units(own)) as queued:
            async for unit in queued:
                found.append((unit.unit, units.shown[id(unit.embedding)]))
    assert split.end is not None
    return found, split.end


async def decode_by_one(pool: DecodePool, file: VideoFile) -> tuple[_Numbers, DecodeSummary]:
    """Decode a file by one worker; return the units, and the summary."""
    async with pool.session() as session:
        plan = plan_whole_video(await session.probe(file))
        found = [
            (unit.unit, [read_number(each) for each in copy_and_release(unit)])
            async for unit in session.decode(plan, SMALL)
        ]
        assert session.end is not None
        return found, session.end


async def test_two_workers_decode_the_frames_that_were_asked_for(long_clip: Path) -> None:
    async with DecodePool(_TWO) as pool:
        with open_file(long_clip) as file:
            found, end = await decode_split(pool, file, Units())
    grid = plan_whole_video(end.metadata).grids[0]
    assert found == [
        (unit, [grid.frame_time_ns(unit, frame) * _RATE // NS_PER_S % 256 for frame in range(2)])
        for unit in range(grid.num_units)
    ]
    assert (end.end_ns, end.warnings) == (130 * NS_PER_S, ())
    assert end.frames_decoded >= _FRAMES - 1


async def test_damage_gives_the_frames_and_warnings_of_one_worker(long_clip: Path, tmp_path: Path) -> None:
    path = damaged(long_clip, tmp_path / "damaged.mp4")
    async with DecodePool(_TWO) as pool:
        with open_file(path) as file:
            by_one = await decode_by_one(pool, file)
            by_two = await decode_split(pool, file, Units())
    assert by_one[1].warnings
    assert by_two[0] == by_one[0]
    assert (by_two[1].warnings, by_two[1].end_ns) == (by_one[1].warnings, by_one[1].end_ns)


async def test_a_video_with_few_key_frames_has_no_parts(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", 130, rate=1, options={"g": "130", "sc_threshold": "0"})
    async with DecodePool(_TWO) as pool, pool.session() as session:
        with open_file(clip) as file:
            await session.probe(file)
        assert not session.knows_key_frames


async def test_a_video_that_comes_gets_its_worker_before_a_part(long_clip: Path) -> None:
    order: list[str] = []

    async with DecodePool(DecodeConfig(workers=1)) as pool:

        async def hold(name: str) -> None:
            async with pool.session() if name == "video" else pool.spare_session():
                order.append(name)

        async with pool.session():
            parts = [asyncio.create_task(hold("part")), asyncio.create_task(hold("part"))]
            await asyncio.sleep(0)
            videos = [asyncio.create_task(hold("video")) for _ in range(2)]
            await asyncio.sleep(0)
            assert pool.has_waiting
            parts[0].cancel()
        await asyncio.gather(*videos, parts[1])
        assert not pool.has_waiting
    assert order == ["video", "video", "part"]


async def test_a_crash_of_a_helper_is_the_video_s_error(long_clip: Path) -> None:
    async with DecodePool(_TWO) as pool:

        def kill_second() -> None:
            """Kill the worker that got its part last."""
            os.kill([*pool._assigned][-1].pid, signal.SIGKILL)

        with open_file(long_clip) as file, pytest.raises(DecoderCrashed):
            await decode_split(pool, file, Units(kill_second))


async def test_rows_of_a_long_video_are_those_of_one_worker(
    long_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[int] = []  # the numbers of their parts

    def note(split: SplitDecoding, own: DecodeSession) -> AsyncGenerator[QueuedUnit]:
        plans.append(len(split._parts))
        return units(split, own)

    units = SplitDecoding.units
    monkeypatch.setattr(SplitDecoding, "units", note)
    monkeypatch.setattr(window_stream, "LONG_NS", 60 * NS_PER_S)  # ten minutes would take long
    rows = [await _rows(long_clip, workers_per_video=workers) for workers in (1, None)]
    assert plans == [4]
    alone, split = ([(row["start_s"], row["end_s"]) for row in each.segments] for each in rows)
    assert split == alone
    assert len(split) == 65
    for one, other in zip(rows[0].segments, rows[1].segments, strict=True):
        scores = dict(zip(one["labels"], one["scores"], strict=True))
        assert dict(zip(other["labels"], other["scores"], strict=True)) == pytest.approx(scores, abs=1e-4)
    ours, theirs = ({**each.video, "scores": None} for each in rows)
    for name in ("device_s", "wall_s", "finished_at", "labels"):
        del ours[name], theirs[name]
    assert ours == theirs


async def _rows(clip: Path, workers_per_video: int | None) -> VideoRows:
    """Return the rows of a clip, by a batch of two decode workers."""
    decode = {"workers": 2, "workers_per_video": workers_per_video}
    config = load_config(engine={"precision": "fp32", "cache_bytes": 0}, decode=decode)
    options = Options(top_k=1000, windowing=Sliding.of_seconds(window_s=2, stride_s=2))
    plan = make_plan(options, config, embeddings=False)
    async with open_batch_classifier(config, plan, 4, Metrics()) as classifier:
        return await classifier.classify(file_item(str(clip)))
