"""The pool of workers: what a video does and leaves, and one that is cancelled, hurts no other."""

import asyncio
import gc
import os
import signal
from pathlib import Path

import psutil
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
from tubelet.service.decode.pool.worker_process import Death
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.video import PixelFormat, UnitFrames

_SECOND = 10**9
_SILENCE_S = 3.0  # that counts as hanging; on a busy machine, a worker at work may be silent for long


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", ["probe", "first unit", "middle"])
async def test_a_cancelled_video_leaves_nothing_to_the_next(clip: Path, where: str, threads: int) -> None:
    async with DecodePool(DecodeConfig(workers=1, threads=threads)) as pool:
        (pid,) = worker_pids()
        for _ in range(5):
            await _cancelled(pool, clip, where)
            await is_right(pool, clip)
        assert worker_pids() == [pid]


async def _cancelled(pool: DecodePool, clip: Path, where: str) -> None:
    reached = asyncio.Event()

    async def one() -> None:
        with opened(clip) as file:
            async with pool.worker() as worker:
                if where == "probe":
                    reached.set()
                plan = whole(await worker.probe(file))
                async for unit in worker.decode(plan, SMALL):
                    if where == "first unit" or unit.unit == 20:
                        reached.set()
                        await asyncio.Event().wait()
                    unit.release()

    task = asyncio.create_task(one())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_that_is_cancelled_while_it_is_probed_anew_leaves_no_descriptor(clip: Path) -> None:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        (pid,) = worker_pids()
        endless = Plan((piece(0, 3600),), is_unbounded=True)
        for _ in range(3):
            with opened(clip) as file:
                async with pool.worker() as worker:
                    metadata = await worker.probe(file, from_front=True)
                    async for unit in worker.decode(endless, SMALL):
                        unit.release()  # what was known of the front is used up
                    again = asyncio.ensure_future(anext(worker.decode(whole(metadata), SMALL)))
                    await asyncio.sleep(0)
                    again.cancel()
                    await asyncio.wait([again])
            await is_right(pool, clip)
            files = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
            assert not [name for name in files if "memfd" in name]


async def test_leaving_the_loop_early_stops_the_walk(pool: DecodePool, clip: Path) -> None:
    (pid,) = worker_pids()
    with opened(clip) as file:
        async with pool.worker() as worker:
            async for unit in worker.decode(whole(await worker.probe(file)), SMALL):
                unit.release()
                break
    await is_right(pool, clip)
    assert worker_pids() == [pid]


async def test_frames_outlive_the_video_that_they_are_of(pool: DecodePool, clip: Path) -> None:
    held: list[UnitFrames] = []
    with opened(clip) as file:
        async with pool.worker() as worker:
            plan = whole(await worker.probe(file))
            held.extend([unit async for unit in worker.decode(plan, SMALL)])
    await is_right(pool, clip)
    for unit in held:
        assert number_of(unit.pixels[0]) == plan.grids[0].frame_time_ns(unit.unit, 0) * 10 // _SECOND
        unit.release()
        unit.release()


async def test_no_free_slot_no_decoding(clip: Path) -> None:
    config = DecodeConfig(workers=1, shared_memory_bytes=MIB, heartbeat_timeout_s=_SILENCE_S)
    big = PixelFormat(256, 256, "stretch")  # a unit of 2 frames is 384 KiB: two slots
    async with DecodePool(config) as pool:
        worker_process = psutil.Process(worker_pids()[0])
        async with pool.worker() as worker:
            with opened(clip) as file:
                units = worker.decode(whole(await worker.probe(file)), big)
            held = [await anext(units), await anext(units)]
            waiting = asyncio.ensure_future(anext(units))
            # Longer than the silence that counts as hanging: one that waits for a slot does not hang, nor
            # does its video cost anything.
            done, _ = await asyncio.wait([waiting], timeout=1.2 * config.heartbeat_timeout_s)
            busy_s, cpu_s = pool.busy_s, sum(worker_process.cpu_times()[:2])
            more, _ = await asyncio.wait([waiting], timeout=0.5)
            assert not done
            assert not more
            assert pool.busy_s == busy_s
            assert sum(worker_process.cpu_times()[:2]) == cpu_s
            held[1].release()
            third = await waiting
            assert number_of(kept(held[0])[0]) == 0
            assert number_of(kept(third)[0]) == 5
            async for unit in units:
                unit.release()
            assert pool.busy_s > busy_s


async def test_views_wait_for_a_slot_while_they_fill_another(clip: Path) -> None:
    """A worker that holds one of the two slots itself is not taken for one that hangs."""
    config = DecodeConfig(workers=1, shared_memory_bytes=MIB, heartbeat_timeout_s=_SILENCE_S)
    big = PixelFormat(256, 256, "stretch")
    plan = Plan(
        tuple(SamplingGrid(0, 9 * _SECOND, 8 * _SECOND, 2, 4, 4, True, start) for start in (0, _SECOND))
    )
    async with DecodePool(config) as pool, pool.worker() as worker:
        with opened(clip) as file:
            await worker.probe(file)
            units = worker.decode(plan, big)
        held = await anext(units)
        waiting = asyncio.ensure_future(anext(units))
        done, _ = await asyncio.wait([waiting], timeout=1.2 * config.heartbeat_timeout_s)
        assert (held.grid, held.unit, done) == (0, 0, set())
        held.release()
        rest = [await waiting]
        rest[0].release()
        async for unit in units:
            rest.append(unit)
            unit.release()
    assert [(unit.grid, unit.unit) for unit in rest] == [
        (1, 0),
        (0, 1),
        (1, 1),
        (0, 2),
        (1, 2),
        (0, 3),
        (1, 3),
    ]


async def test_a_unit_larger_than_the_shared_memory(clip: Path) -> None:
    async with DecodePool(DecodeConfig(workers=1, shared_memory_bytes=MIB)) as pool, pool.worker() as worker:
        plan = Plan((piece(0, 2),))
        _, units, _ = await decode_file(worker, clip, plan, PixelFormat(600, 600, "stretch"))
    assert [number_of(units[0, unit][0]) for unit in range(4)] == [1, 6, 11, 16]


async def test_the_offset_of_the_upload_is_left_alone(pool: DecodePool, clip: Path) -> None:
    with opened(clip) as file:
        os.lseek(file.fd, 123, os.SEEK_SET)
        async with pool.worker() as worker:
            metadata = await worker.probe(file)
        assert metadata.size_bytes == clip.stat().st_size
        assert os.lseek(file.fd, 0, os.SEEK_CUR) == 123


async def test_nothing_is_left_behind(clip: Path) -> None:
    await _is_right_in_a_pool(clip)  # what the loop keeps for good is there after the first
    gc.collect()  # what other tests have left
    before = _descriptors()
    deaths: asyncio.Queue[Death] = asyncio.Queue()
    async with DecodePool(DecodeConfig(workers=2), deaths.put_nowait) as pool:
        for pid in worker_pids():
            os.kill(pid, signal.SIGKILL)
            await deaths.get()
        await asyncio.gather(*(is_right(pool, clip) for _ in range(6)))
        with opened(clip) as file:
            async with pool.worker() as worker:
                await anext(worker.decode(whole(await worker.probe(file)), SMALL))
        async with pool.worker(), pool.worker():
            in_workers = [psutil.Process(pid).num_fds() for pid in worker_pids()]
    assert worker_pids() == []
    gc.collect()  # the unit of the walk that was left
    assert _descriptors() == before
    assert in_workers == [5, 5]  # three standard ones and two sockets


async def test_memory_does_not_grow_with_videos(pool: DecodePool, tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", 60, size=(1280, 720), options={"preset": "ultrafast"})
    process = psutil.Process(worker_pids()[0])
    in_use: list[int] = []
    for _ in range(12):
        async with pool.worker() as worker:
            await decode_file(worker, clip)
        async with pool.worker():  # the one before is forgotten
            in_use.append(process.memory_info().rss)
    # What one video needed is kept for the next ones. A decoder and its frames are more than 8 MiB.
    assert in_use[-1] - in_use[5] < 8 * MIB


async def _is_right_in_a_pool(clip: Path) -> None:
    async with DecodePool(DecodeConfig(workers=1)) as pool:
        await is_right(pool, clip)


def _descriptors() -> int:
    return psutil.Process().num_fds()
