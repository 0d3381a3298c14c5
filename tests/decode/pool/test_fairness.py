"""Videos take turns at the workers: who comes first, who waits, and who is helped past a long one."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support.videos import (
    SMALL,
    decode_file,
    is_right,
    kept,
    number_of,
    opened,
    piece,
    render,
    whole,
    worker_pids,
)
from tubelet.service.config.config import MIB, DecodeConfig
from tubelet.service.decode.pool.pool import DecodePool
from tubelet.service.types.plan import Plan
from tubelet.service.types.request import Priority
from tubelet.service.types.video import PixelFormat

_SECOND = 10**9


async def test_two_videos_at_once(clip: Path, tmp_path: Path) -> None:
    other = render(tmp_path / "other.mkv", 100, rate=5, size=(256, 128))
    async with DecodePool(DecodeConfig(workers=2)) as pool:
        met = asyncio.Barrier(2)

        async def one(path: Path, rate: int) -> None:
            async with pool.worker() as worker:
                await met.wait()
                assert pool.busy_workers == 2
                metadata, units, _ = await decode_file(worker, path)
            grid = whole(metadata).grids[0]
            numbers = {key[1]: number_of(pixels[0]) for key, pixels in units.items()}
            assert numbers == {
                unit: grid.frame_time_ns(unit, 0) * rate // _SECOND for unit in range(grid.num_units)
            }

        await asyncio.gather(one(clip, 10), one(other, 5))
        assert len(worker_pids()) == 2


async def test_first_come_first_served(pool: DecodePool, clip: Path) -> None:
    order: list[int] = []

    async def one(number: int) -> None:
        async with pool.worker() as worker:
            order.append(number)
            await decode_file(worker, clip, Plan((piece(0, 1),)))

    await asyncio.gather(*(one(number) for number in range(4)))
    assert order == [0, 1, 2, 3]


async def test_a_long_video_lets_others_decode_beside_it(clip: Path) -> None:
    """One whose frames nobody takes has its worker for ever; then it is ended for its niceness."""
    async with DecodePool(DecodeConfig(workers=1, long_video_after_s=0.2, max_long_videos=1)) as pool:
        (pid,) = worker_pids()
        with opened(clip) as file:
            async with pool.worker() as worker:
                plan = whole(await worker.probe(file))
                units = worker.decode(plan, SMALL)
                (await anext(units)).release()
                assert worker_pids() == [pid]  # nobody waits
                await is_right(pool, clip)
                assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
                rest = [number_of(kept(unit)[0]) async for unit in units]
        assert len(rest) == plan.grids[0].num_units - 1
        while len(worker_pids()) > 1:
            await asyncio.sleep(0.01)
        assert worker_pids() != [pid]


@pytest.mark.parametrize("is_killed", [False, True])
async def test_it_tells_how_many_workers_are_at_work(clip: Path, is_killed: bool) -> None:
    """Not those that wait for a video or for a free slot, nor a dead one."""
    told: list[int] = []
    rested = asyncio.Event()

    def on_work(at_work: int) -> None:
        told.append(at_work)
        if not at_work:
            rested.set()

    config = DecodeConfig(workers=1, shared_memory_bytes=MIB)
    big = PixelFormat(256, 256, "stretch")  # two slots
    async with DecodePool(config, on_work=on_work) as pool:
        (pid,) = worker_pids()
        async with pool.worker() as worker:
            with opened(clip) as file:
                units = worker.decode(whole(await worker.probe(file)), big)
            held = [await anext(units), await anext(units)]
            assert told[-1] == 0
            held[0].release()
            assert told[-1] == 1
            rested.clear()
            if is_killed:
                os.kill(pid, signal.SIGKILL)
            await rested.wait()
        await is_right(pool, clip)
        assert told[-1] == 0
    assert set(told) == {0, 1}


async def test_nobody_loses_patience_for_who_waits_no_more(clip: Path) -> None:
    async def wait_for_one() -> None:
        async with pool.worker():
            pass

    async with DecodePool(DecodeConfig(workers=1, long_video_after_s=3600)) as pool:
        async with pool.worker():
            waiting = [asyncio.create_task(wait_for_one()) for _ in range(2)]
            await asyncio.sleep(0)  # now both wait
            for each in waiting:
                assert pool._patience is not None
                each.cancel()
                await asyncio.wait([each])
            assert pool._patience is None
        await is_right(pool, clip)


async def test_no_more_than_so_many_are_long(clip: Path) -> None:
    async with DecodePool(DecodeConfig(workers=1, long_video_after_s=0.05, max_long_videos=1)) as pool:
        async with pool.worker(), pool.worker():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5), pool.worker():
                    pass
            assert pool.busy_workers == 2
        await is_right(pool, clip)


async def test_high_priority_comes_first(clip: Path) -> None:
    served: list[Priority] = []

    async def one(priority: Priority) -> None:
        async with pool.worker(priority=priority):
            served.append(priority)

    async with DecodePool(DecodeConfig(workers=1)) as pool:
        async with pool.worker():
            waiting = [asyncio.create_task(one(priority)) for priority in Priority]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        await is_right(pool, clip)
    assert served == [Priority.HIGH, Priority.NORMAL, Priority.LOW]


async def test_who_is_cancelled_with_a_worker_in_hand_gives_it_back(clip: Path) -> None:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        async with pool.worker():
            waiting = asyncio.create_task(_holds(pool))
            await asyncio.sleep(0)
        while pool.busy_workers:  # given back, and handed to who waits: who has not woken up yet
            await asyncio.sleep(0)
            if waiting.done():
                break
            waiting.cancel()
        await asyncio.wait([waiting])
        await is_right(pool, clip)


async def _holds(pool: DecodePool) -> None:
    async with pool.worker():
        await asyncio.sleep(10)
