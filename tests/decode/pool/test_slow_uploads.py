"""Videos that are uploaded slowly: they do not keep others from decoding, nor count as hung."""

import asyncio
import os
from pathlib import Path

from tests.support.videos import (
    SMALL,
    assert_decodes_correctly,
    copy_and_release,
    read_number,
    render,
    worker_pids,
)
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.worker_state import WorkerFailure
from tubelet.service.types.plan import Plan, SamplingGrid

_SECOND = 10**9


class SlowFile:
    """A file of which only the first bytes are available, until the test calls ``complete``.

    That of an upload has no size until then, that of a fetched video has.
    """

    def __init__(self, path: Path, available: int, size_bytes: int | None = None) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        self.size_bytes = size_bytes
        self.is_awaited = asyncio.Event()
        self._available = available
        self._completed = asyncio.Event()

    @property
    def is_whole(self) -> bool:
        return self._completed.is_set()

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        if start >= self._available and not self.is_whole:
            self.is_awaited.set()
            await self._completed.wait()
        return 0, self._available

    async def whole(self) -> int:
        await self._completed.wait()
        return self._available

    def complete(self) -> None:
        self._available = self.size_bytes = os.fstat(self.fd).st_size
        self._completed.set()


async def test_slow_uploads_do_not_hold_all_workers(tmp_path: Path, clip: Path) -> None:
    path = render(tmp_path / "clip.mkv", 200)
    slow = [SlowFile(path, path.stat().st_size // 2) for _ in range(3)]
    failures: list[WorkerFailure] = []
    async with DecodePool(DecodeConfig(workers=1, max_uploading_videos=2), failures.append) as pool:

        async def decode(file: SlowFile) -> list[int]:
            async with pool.session(file) as session:
                metadata = await session.probe(file, header_only=True)
                assert metadata.frames == 0 or file.size_bytes is not None
                return [
                    read_number(copy_and_release(unit)[0])
                    async for unit in session.decode(_unbounded_plan(), SMALL)
                ]

        decoding = [asyncio.create_task(decode(file)) for file in slow]
        await slow[0].is_awaited.wait()
        await slow[1].is_awaited.wait()
        await assert_decodes_correctly(pool, clip)
        assert len(worker_pids()) == 3
        assert not slow[2].is_awaited.is_set()
        for file in slow:
            file.complete()
        expected = [_unbounded_plan().grids[0].frame_time_ns(unit, 0) * 10 // _SECOND for unit in range(80)]
        assert await asyncio.gather(*decoding) == [expected] * 3
        await assert_decodes_correctly(pool, clip)
        async with pool.session():
            assert pool.busy_workers == 1
    assert failures == []


async def test_no_more_workers_stand_in_for_fetched_videos_than_for_uploads(tmp_path: Path) -> None:
    path = render(tmp_path / "clip.mkv", 20)
    fetched = [SlowFile(path, 0, path.stat().st_size) for _ in range(3)]
    async with DecodePool(DecodeConfig(workers=1, max_uploading_videos=1)) as pool:

        async def probe(file: SlowFile) -> int:
            async with pool.session(file) as session:
                return (await session.probe(file)).frames

        probing = [asyncio.create_task(probe(file)) for file in fetched]
        await fetched[0].is_awaited.wait()
        await fetched[1].is_awaited.wait()
        await asyncio.sleep(1)
        assert len(worker_pids()) == 2
        assert not fetched[2].is_awaited.is_set()
        for file in fetched:
            file.complete()
        assert await asyncio.gather(*probing) == [20] * 3


async def test_worker_waiting_for_bytes_neither_works_nor_counts_as_hung(tmp_path: Path) -> None:
    """A client may pause for longer than a worker may be silent, even if frames are released meanwhile."""
    reported: list[int] = []
    path = render(tmp_path / "clip.mkv", 200)
    file = SlowFile(path, path.stat().st_size // 2)
    config = DecodeConfig(workers=1, heartbeat_timeout_s=3)
    async with DecodePool(config, on_work=reported.append) as pool:
        async with pool.session(file) as session:
            await session.probe(file, header_only=True)
            units = session.decode(_unbounded_plan(), SMALL)
            first = await anext(units)
            await file.is_awaited.wait()
            assert reported[-1] == 0
            first.release()
            assert reported[-1] == 0
            busy_s = pool.busy_s
            await asyncio.sleep(1.2 * config.heartbeat_timeout_s)
            assert pool.busy_s == busy_s
            file.complete()
            rest = [read_number(copy_and_release(unit)[0]) async for unit in units]
        assert len(rest) == 79
        assert reported[-1] == 0


def _unbounded_plan() -> Plan:
    return Plan((SamplingGrid(0, 3600 * _SECOND, 2 * _SECOND, 2, 8, 4),), is_unbounded=True)
