"""Videos whose bytes come slowly: who waits for them keeps nobody else from decoding, and is not at fault."""

import asyncio
import os
from pathlib import Path

from tests.support.videos import SMALL, is_right, kept, number_of, render, worker_pids
from tubelet.service.config.config import DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.decode.pool.worker_process import Death
from tubelet.service.types.plan import Plan, SamplingGrid

_SECOND = 10**9


class Trickle:
    """A file of which the front is there, until the test lets the rest come."""

    def __init__(self, path: Path, bytes_there: int) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        self.size_bytes: int | None = None
        self.waits = asyncio.Event()
        self._there = bytes_there
        self._rest = asyncio.Event()

    @property
    def is_whole(self) -> bool:
        return self.size_bytes is not None

    async def wait(self, start: int, end: int) -> tuple[int, int]:
        if start >= self._there and self.size_bytes is None:
            self.waits.set()
            await self._rest.wait()
        return 0, self._there

    async def whole(self) -> int:
        await self._rest.wait()
        return self._there

    def come(self) -> None:
        self._there = self.size_bytes = os.fstat(self.fd).st_size
        self._rest.set()


async def test_videos_that_trickle_in_do_not_hold_all_workers(tmp_path: Path, clip: Path) -> None:
    path = render(tmp_path / "clip.mkv", 200)
    slow = [Trickle(path, path.stat().st_size // 2) for _ in range(3)]
    deaths: list[Death] = []
    async with DecodePool(DecodeConfig(workers=1, max_uploading_videos=2), deaths.append) as pool:

        async def decode(file: Trickle) -> list[int]:
            async with pool.worker(file) as worker:
                metadata = await worker.probe(file, from_front=True)
                assert metadata.frames == 0 or file.size_bytes is not None
                return [number_of(kept(unit)[0]) async for unit in worker.decode(_open_ended(), SMALL)]

        under_way = [asyncio.create_task(decode(file)) for file in slow]
        await slow[0].waits.wait()
        await slow[1].waits.wait()
        await is_right(pool, clip)
        assert len(worker_pids()) == 3
        assert not slow[2].waits.is_set()
        for file in slow:
            file.come()
        expected = [_open_ended().grids[0].frame_time_ns(unit, 0) * 10 // _SECOND for unit in range(80)]
        assert await asyncio.gather(*under_way) == [expected] * 3
        await is_right(pool, clip)
        async with pool.worker():
            assert pool.busy_workers == 1
    assert deaths == []


async def test_whoever_waits_for_bytes_is_neither_at_work_nor_silent(tmp_path: Path) -> None:
    """A client may pause for longer than a decoder may, whatever happens to its frames meanwhile."""
    told: list[int] = []
    path = render(tmp_path / "clip.mkv", 200)
    file = Trickle(path, path.stat().st_size // 2)
    config = DecodeConfig(workers=1, heartbeat_timeout_s=3)
    async with DecodePool(config, on_work=told.append) as pool:
        async with pool.worker(file) as worker:
            await worker.probe(file, from_front=True)
            units = worker.decode(_open_ended(), SMALL)
            first = await anext(units)
            await file.waits.wait()
            assert told[-1] == 0
            first.release()
            assert told[-1] == 0
            busy_s = pool.busy_s
            await asyncio.sleep(1.2 * config.heartbeat_timeout_s)
            assert pool.busy_s == busy_s
            file.come()
            rest = [number_of(kept(unit)[0]) async for unit in units]
        assert len(rest) == 79
        assert told[-1] == 0


def _open_ended() -> Plan:
    return Plan((SamplingGrid(0, 3600 * _SECOND, 2 * _SECOND, 2, 8, 4),), is_unbounded=True)
